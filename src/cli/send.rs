//! `send`: messages to one user, each acknowledged before the command ends well.
//!
//! Exit codes: 0 every message is acknowledged; 1 one was refused, or was not acknowledged in time; 2 the arguments
//! are wrong. Acknowledgements go to standard output as they come, everything else to standard error.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::input::{BadLine, Input, Lines};
use super::target::{self, Target, wrong};
use super::wording::{messages, one_line};
use super::{FAILED, complain};
use crate::client::{Ack, Client, Draft, Event, Start};
use crate::protocol;
use crate::settings::Loaded;

/// Messages of standard input that wait in the client; more are read as these are acknowledged.
const AHEAD: usize = 64;

/// No `Debug`: the token is a secret.
#[derive(Clone, clap::Args)]
pub(super) struct SendArgs {
    /// The recipient.
    #[arg(long, value_name = "USER", value_parser = target::user)]
    to: String,
    /// The sender.
    #[arg(long, value_name = "USER", default_value = "meridian", value_parser = target::user)]
    from: String,
    #[command(flatten)]
    target: Target,
    /// Makes a repeat harmless: the same id is delivered once within ten minutes. With `-`, the number of the
    /// line is added to it, as in ID-1, ID-2 [default: random].
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Any JSON value, handed on beside the text or instead of it.
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// Give up when messages wait and none was acknowledged for this long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = target::duration)]
    timeout: Duration,
    /// Print each acknowledgement as a line of JSON.
    #[arg(long)]
    json: bool,
    /// What to say; `-` sends each line of standard input that is not empty.
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
}

/// Where messages come from.
enum Source {
    One(Option<Draft>),
    Lines {
        input: Input,
        lines: Lines,
        ready: VecDeque<Result<String, BadLine>>,
        number: u64,
        ended: bool,
    },
}

/// Sends, and blocks until all is settled.
pub(super) fn run(args: SendArgs, loaded: &Loaded) -> ExitCode {
    let SendArgs { to, from, target, id, data, timeout, json, text } = args;
    let batch = text.as_deref() == Some("-");
    if let Err(why) = check(batch, text.as_deref(), id.as_deref(), data.as_deref()) {
        return wrong(&why);
    }
    let data = match data.map(RawValue::from_string).transpose() {
        Ok(data) => data,
        Err(error) => return wrong(&format!("--data is not JSON: {error}")),
    };
    let client = match target.client(loaded, from, Start::Now) {
        Ok(client) => client,
        Err(code) => return code,
    };
    let pattern = Draft { id: id.unwrap_or_else(protocol_id), to, text: None, data };
    let source = if batch {
        match Input::start() {
            Ok(input) => {
                let (lines, ready) = (Lines::default(), VecDeque::new());
                Source::Lines { input, lines, ready, number: 0, ended: false }
            }
            Err(error) => {
                complain(&format!("standard input cannot be read: {error}"));
                return ExitCode::from(FAILED);
            }
        }
    } else {
        Source::One(Some(Draft { text, ..pattern.clone() }))
    };
    let sending = Sending { client, source, pattern, timeout, json, failed: false };
    super::block_on(sending.run())
}

/// What is wrong with the arguments together.
fn check(
    batch: bool,
    text: Option<&str>,
    id: Option<&str>,
    data: Option<&str>,
) -> Result<(), String> {
    // Room for the number of a line.
    let longest = if batch { "-18446744073709551615" } else { "" };
    if id.is_some_and(|id| id.is_empty() || !protocol::is_id(&format!("{id}{longest}"))) {
        let most = 64 - longest.len();
        return Err(format!("--id is 1 to {most} visible ASCII characters"));
    }
    if text.is_none_or(str::is_empty) && data.is_none() {
        return Err(
            "there is nothing to send: say TEXT, `-` for the lines of standard input, or --data"
                .into(),
        );
    }
    Ok(())
}

/// Never used before.
pub(super) fn protocol_id() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(22).collect()
}

struct Sending {
    client: Client,
    source: Source,
    /// What all messages have in common.
    pattern: Draft,
    timeout: Duration,
    json: bool,
    /// A message did not go, or will not.
    failed: bool,
}

/// An acknowledgement as `--json` prints it: the frame of the wire.
#[derive(Serialize)]
struct AckLine<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    ack: &'a Ack,
}

impl Sending {
    async fn run(mut self) -> ExitCode {
        let mut last_word = String::from("there was no connection");
        let mut give_up = Instant::now() + self.timeout;
        loop {
            let waits = self.client.unsettled();
            if waits == 0 {
                give_up = Instant::now() + self.timeout;
                if self.source.has_ended() {
                    break;
                }
            }
            tokio::select! {
                biased;
                event = self.client.next() => match event {
                    Some(Event::Acknowledged(draft, ack)) => {
                        give_up = Instant::now() + self.timeout;
                        self.acknowledged(&draft, &ack);
                    }
                    Some(Event::Refused(draft, fault)) => {
                        give_up = Instant::now() + self.timeout;
                        self.fail(&format!("{} was refused: {} ({})", draft.id, fault.message, fault.code));
                    }
                    Some(Event::Disconnected { why, .. }) => last_word = why,
                    Some(Event::Connected { .. }) => "the gateway does not take it for now".clone_into(&mut last_word),
                    Some(Event::Ended { why }) => {
                        self.fail(&format!("not sent: {why}"));
                        break;
                    }
                    None => break,
                    Some(_) => {}
                },
                next = self.source.next(&self.pattern), if waits < AHEAD && !self.source.has_ended() => self.queue(next),
                () = tokio::time::sleep_until(give_up), if waits > 0 => {
                    self.fail(&format!("{} not acknowledged within {:?}: {last_word}", messages(waits), self.timeout));
                    break;
                }
            }
        }
        let Self { client, failed, .. } = self;
        client.close().await;
        if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
    }

    fn queue(&mut self, next: Result<Option<Draft>, String>) {
        match next {
            Ok(Some(draft)) => {
                if let Err(error) = self.client.send(draft) {
                    self.fail(&error.to_string());
                }
            }
            Ok(None) => {}
            Err(why) => self.fail(&why),
        }
    }

    fn acknowledged(&mut self, draft: &Draft, ack: &Ack) {
        let line = if self.json {
            serde_json::to_string(&AckLine { kind: "ack", ack }).unwrap_or_default()
        } else {
            let repeat = if ack.duplicate { ", a repeat" } else { "" };
            format!("sent {} to {} (seq {}{repeat})", draft.id, draft.to, ack.seq)
        };
        let mut out = io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            // A reader that has gone wants no more lines; the messages still go.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                self.fail(&format!("the result cannot be written: {error}"));
            }
            _ => {}
        }
    }

    fn fail(&mut self, why: &str) {
        self.failed = true;
        complain(&one_line(why));
    }
}

impl Source {
    fn has_ended(&self) -> bool {
        match self {
            Self::One(draft) => draft.is_none(),
            Self::Lines { ready, ended, .. } => *ended && ready.is_empty(),
        }
    }

    /// The next message; none where the source has ended, or has nothing for now. Safe to stop awaiting.
    async fn next(&mut self, pattern: &Draft) -> Result<Option<Draft>, String> {
        let (input, lines, ready, number, ended) = match self {
            Self::One(draft) => return Ok(draft.take()),
            Self::Lines { input, lines, ready, number, ended } => {
                (input, lines, ready, number, ended)
            }
        };
        if ready.is_empty() && !*ended {
            match input.next().await {
                Ok(Some(block)) => ready.extend(lines.push(&block)),
                Ok(None) => {
                    *ended = true;
                    ready.extend(lines.finish());
                }
                Err(error) => {
                    *ended = true;
                    return Err(format!("standard input cannot be read: {error}"));
                }
            }
        }
        let Some(line) = ready.pop_front() else { return Ok(None) };
        *number += 1;
        match line {
            Ok(text) if text.is_empty() => Ok(None),
            Ok(text) => {
                let id = format!("{}-{number}", pattern.id);
                Ok(Some(Draft { id, text: Some(text), ..pattern.clone() }))
            }
            Err(bad) => Err(format!("line {number} was not sent: {bad}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked_together() {
        assert_eq!(check(false, Some("hi"), None, None), Ok(()));
        assert_eq!(check(false, None, Some("c1"), Some("1")), Ok(()));
        assert!(check(false, None, None, None).unwrap_err().contains("--data"));
        assert!(check(false, Some(""), None, None).is_err());
        let id = "x".repeat(64);
        assert_eq!(check(false, Some("hi"), Some(&id), None), Ok(()));
        assert!(check(true, Some("-"), Some(&id), None).unwrap_err().contains("1 to 43"));
        assert!(check(false, Some("hi"), Some("a b"), None).is_err());
        assert!(check(false, Some("hi"), Some(""), None).is_err());
    }
}
