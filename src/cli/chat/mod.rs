//! `chat`: a conversation in a terminal, or over pipes.
//!
//! Walk: `Input` brings what is typed (`editor` makes lines of keys), `words` reads a line, the client sends it; what
//! the client tells comes to the `view`. First comes what the inbox still holds, marked as earlier, then what is
//! said now. The end comes by `/quit`, by the end of the input, or by a signal.
//!
//! Exit codes: 0 all that was said is acknowledged; 1 something is not, or the gateway refused; 2 the arguments are wrong.

mod editor;
mod events;
mod screen;
mod status;
mod terminal;
mod typed;
mod view;
mod words;

use std::collections::VecDeque;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use self::status::Status;
use self::view::View;
use super::input::{BadLine, Input, Lines};
use super::target::{self, Target};
use super::wording::{messages, one_line};
use super::{FAILED, complain};
use crate::client::{Client, Start};
use crate::settings::Loaded;

/// After the end of the input, what the inbox still holds has come when nothing has for this long …
const QUIET: Duration = Duration::from_millis(300);
/// … and more than this is not waited for.
const LINGER: Duration = Duration::from_secs(3);

/// No `Debug`: the token is a secret.
#[derive(Clone, clap::Args)]
pub(super) struct ChatArgs {
    /// Who you are.
    #[arg(long = "as", value_name = "USER", value_parser = target::user)]
    me: String,
    /// Whom to write to; `/to USER` changes it.
    #[arg(long, value_name = "USER", value_parser = target::user)]
    with: Option<String>,
    #[command(flatten)]
    target: Target,
    /// At the end, give up when messages wait and none was acknowledged for this long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = target::duration)]
    timeout: Duration,
}

/// Converses, and blocks until it ends.
pub(super) fn run(args: ChatArgs, loaded: &Loaded) -> ExitCode {
    let ChatArgs { me, with, target, timeout } = args;
    let place = target.client(loaded, me.clone(), Start::Retained);
    let client = match place {
        Ok(client) => client,
        Err(code) => return code,
    };
    super::block_on(async {
        let opened = Input::start().and_then(|input| Ok((input, View::open()?)));
        let (input, view) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                complain(&format!("the terminal cannot be used: {error}"));
                return ExitCode::from(FAILED);
            }
        };
        let mut chat = Chat::new(me, client, view);
        let ended = chat.run(input, with, timeout).await;
        let waits = chat.client.unsettled();
        // A terminal that has gone cannot be tidied up.
        drop(chat.view.close());
        let Chat { client, view, .. } = chat;
        drop(view);
        client.close().await;
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever reads has heard enough, as `head` does.
            Err(End::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe && waits == 0 => {
                ExitCode::SUCCESS
            }
            Err(end) => {
                complain(&one_line(&end.to_string()));
                ExitCode::from(FAILED)
            }
        }
    })
}

/// Why a conversation did not end well.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Ended(String),
    #[error("{}: {why}", not_acknowledged(*.waits))]
    GivenUp { waits: usize, why: String },
    #[error("{}", not_acknowledged(*.0))]
    Left(usize),
    #[error("not all that was typed was sent")]
    Unsaid,
    #[error("the result cannot be written: {0}")]
    Output(#[from] io::Error),
    #[error("standard input cannot be read: {0}")]
    Input(io::Error),
}

fn not_acknowledged(waits: usize) -> String {
    if waits == 0 {
        "there was no connection".into()
    } else {
        format!("{} not acknowledged", messages(waits))
    }
}

struct Chat {
    me: String,
    client: Client,
    view: View,
    status: Status,
    /// What was sent before this is shown as earlier: the server's clock when the conversation began.
    began: Option<SystemTime>,
    /// When typing was told last.
    typing_told: Option<Instant>,
    lines: Lines,
    /// Piped lines that wait until there is room in the client.
    typed: VecDeque<Result<String, BadLine>>,
    /// Piped input has ended.
    input_ended: bool,
    /// Something that was to be said was not.
    unsaid: bool,
    ending: Option<Ending>,
}

/// The input has ended, and what is left is waited for.
struct Ending {
    since: Instant,
    /// The last event.
    quiet_since: Instant,
    /// Patience begins anew with each message that is settled.
    give_up: Instant,
}

/// Goes on, or the conversation is over.
type Step = Result<std::ops::ControlFlow<()>, End>;
const ON: Step = Ok(std::ops::ControlFlow::Continue(()));
const OVER: Step = Ok(std::ops::ControlFlow::Break(()));

impl Chat {
    fn new(me: String, client: Client, view: View) -> Self {
        Self {
            me,
            client,
            view,
            status: Status::default(),
            began: None,
            typing_told: None,
            lines: Lines::default(),
            typed: VecDeque::new(),
            input_ended: false,
            unsaid: false,
            ending: None,
        }
    }

    async fn run(
        &mut self,
        mut input: Input,
        with: Option<String>,
        timeout: Duration,
    ) -> Result<(), End> {
        let mut stops = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
            .map(signal)
            .into_iter()
            .collect::<io::Result<Vec<_>>>()?;
        let mut resized = signal(SignalKind::window_change())?;
        if let Some(user) = with {
            self.talk_with(user);
        }
        if self.view.is_terminal() {
            self.view.note("-- /help says what you can do")?;
        }
        loop {
            self.take_lines(timeout)?;
            self.view.prompt(self.status.prompt(self.client.unsettled()))?;
            if self.is_done() {
                return self.end();
            }
            let wake = self.wake();
            let reads = self.takes_input();
            let stop = futures_util::future::select_all(
                stops.iter_mut().map(|stop| Box::pin(stop.recv())),
            );
            let next = tokio::select! {
                biased;
                _ = stop => return self.leave(),
                event = self.client.next() => match event {
                    Some(event) => self.on_event(event, timeout),
                    None => OVER,
                },
                block = input.next(), if reads => self.on_input(block.map_err(End::Input)?, timeout),
                _ = resized.recv() => {
                    self.view.redraw()?;
                    ON
                }
                () = sleep_until(wake) => self.on_time(),
            };
            if next?.is_break() {
                return self.end();
            }
        }
    }

    /// How the conversation ends that has come to its end.
    fn end(&self) -> Result<(), End> {
        if self.unsaid { Err(End::Unsaid) } else { Ok(()) }
    }

    /// The end at once: what is not acknowledged is left.
    fn leave(&self) -> Result<(), End> {
        match self.client.unsettled() {
            0 => self.end(),
            waits => Err(End::Left(waits)),
        }
    }

    /// Whether the input has ended and nothing more is to be waited for.
    fn is_done(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| {
            let over = ending.quiet_since.elapsed() >= QUIET || ending.since.elapsed() >= LINGER;
            self.client.unsettled() == 0 && self.status.has_begun() && over
        })
    }

    /// The next moment at which time alone changes something.
    fn wake(&self) -> Instant {
        let ending = self.ending.as_ref().map(|ending| {
            let done = (ending.quiet_since + QUIET).min(ending.since + LINGER);
            let waits = self.client.unsettled() > 0 || !self.status.has_begun();
            if waits { ending.give_up } else { done }
        });
        let far = Instant::now() + Duration::from_hours(1);
        [ending, self.status.deadline()].into_iter().flatten().fold(far, Instant::min)
    }

    fn on_time(&mut self) -> Step {
        let now = Instant::now();
        self.status.forget_typing(now);
        let waits = self.client.unsettled();
        let stuck = waits > 0 || !self.status.has_begun();
        if stuck && self.ending.as_ref().is_some_and(|ending| ending.give_up <= now) {
            return Err(End::GivenUp { waits, why: self.status.trouble().to_owned() });
        }
        ON
    }
}
