//! One entry of the tables: what a client sends, what must come of it at the backend and at the client.

use meridian::settings::Settings;

use super::wire::Reply;
use crate::harness::backend::Step;

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It is closed behind the answer, and nothing else is said on it.
    Closes,
    /// It serves another request.
    Stays,
    /// What was sent behind the first request is answered so, and then it is closed.
    Answers(&'static [u16]),
    /// The rule leaves it open.
    Either,
}

/// An entry.
pub(super) struct Case {
    /// The row of the list of rules that it holds.
    pub(super) row: u8,
    pub(super) name: String,
    pub(super) sends: Vec<u8>,
    /// What the backend does, request by request; afterwards it says `ok`.
    pub(super) script: Vec<Step>,
    /// Any of these; 0 is the end of the connection without a word.
    pub(super) status: Vec<u16>,
    /// What the rule allows besides, and this gateway does not do.
    pub(super) elsewhere: Vec<u16>,
    /// How many requests must have come to the backend; `usize::MAX` where nobody minds.
    pub(super) reaches: usize,
    pub(super) after: After,
    /// Parts of the backend's heads, in lower case: those that must be there, and those that must not.
    pub(super) sees: Vec<String>,
    pub(super) sees_not: Vec<String>,
    /// The same of the answer's head.
    pub(super) gets: Vec<String>,
    pub(super) gets_not: Vec<String>,
    pub(super) body: Option<String>,
    pub(super) trailers: Option<&'static str>,
    /// The answer must be seen to be cut short.
    pub(super) cut: bool,
    pub(super) settings: fn(&mut Settings),
    /// About regions or bounds of this gateway alone, so that others cannot be compared.
    pub(super) ours: bool,
}

/// The beginning of a request that is good so far.
pub(super) const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n";
pub(super) const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n";
/// The lines of a WebSocket handshake.
pub(super) const ASKING: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// The answer to it.
pub(super) const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A request that is passed on, and answered 200 by the backend.
pub(super) fn passes(row: u8, name: &str, sends: impl Into<Vec<u8>>) -> Case {
    Case {
        row,
        name: name.to_owned(),
        sends: sends.into(),
        script: Vec::new(),
        status: vec![200],
        elsewhere: Vec::new(),
        reaches: 1,
        after: After::Stays,
        sees: Vec::new(),
        sees_not: Vec::new(),
        gets: Vec::new(),
        gets_not: Vec::new(),
        body: None,
        trailers: None,
        cut: false,
        settings: |_| (),
        ours: false,
    }
}

/// A request that is answered here: nothing of it reaches a backend, and the connection ends.
pub(super) fn refused(row: u8, name: &str, sends: impl Into<Vec<u8>>, status: &[u16]) -> Case {
    let status = status.to_vec();
    Case { status, reaches: 0, after: After::Closes, ..passes(row, name, sends) }
}

/// A good GET, and what the backend does with it.
pub(super) fn replies(row: u8, name: &str, reply: &str) -> Case {
    passes(row, name, format!("{GET}\r\n")).by([Step::Reply(reply.into())])
}

fn lower(parts: &[&str]) -> impl Iterator<Item = String> {
    parts.iter().map(|part| part.to_ascii_lowercase())
}

impl Case {
    pub(super) fn by(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.script.extend(steps);
        self
    }

    pub(super) fn status(mut self, any: &[u16]) -> Self {
        self.status = any.to_vec();
        self
    }

    pub(super) fn elsewhere(mut self, any: &[u16]) -> Self {
        self.elsewhere = any.to_vec();
        self
    }

    pub(super) fn reaches(mut self, requests: usize) -> Self {
        self.reaches = requests;
        self
    }

    pub(super) fn then(mut self, after: After) -> Self {
        self.after = after;
        self
    }

    pub(super) fn sees(mut self, parts: &[&str]) -> Self {
        self.sees.extend(lower(parts));
        self
    }

    pub(super) fn sees_not(mut self, parts: &[&str]) -> Self {
        self.sees_not.extend(lower(parts));
        self
    }

    pub(super) fn gets(mut self, parts: &[&str]) -> Self {
        self.gets.extend(lower(parts));
        self
    }

    pub(super) fn gets_not(mut self, parts: &[&str]) -> Self {
        self.gets_not.extend(lower(parts));
        self
    }

    pub(super) fn body(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self
    }

    pub(super) fn trailers(mut self, trailers: &'static str) -> Self {
        self.trailers = Some(trailers);
        self
    }

    pub(super) fn cut(mut self) -> Self {
        self.cut = true;
        self.then(After::Closes)
    }

    pub(super) fn with(mut self, settings: fn(&mut Settings)) -> Self {
        self.settings = settings;
        self.ours = true;
        self
    }

    pub(super) fn ours(mut self) -> Self {
        self.ours = true;
        self
    }
}

/// What came of an entry.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) reply: Option<Reply>,
    /// The statuses of the answers behind it.
    pub(super) next: Vec<u16>,
    /// What came behind the answers.
    pub(super) surplus: Vec<u8>,
    /// The connection was still open when the test looked the last time.
    pub(super) open: bool,
    /// The backend's heads, but for that of the request behind.
    pub(super) heads: Vec<String>,
}

impl Outcome {
    pub(super) fn status(&self) -> u16 {
        self.reply.as_ref().map_or(0, |reply| reply.status)
    }
}

impl Case {
    /// The same for another gateway, which may do whatever the rule allows.
    pub(super) fn judge_elsewhere(&self, outcome: &Outcome) -> Result<(), String> {
        let status = outcome.status();
        if !self.elsewhere.contains(&status) {
            return self.judge(outcome);
        }
        if let Some(reply) = outcome.reply.as_ref().filter(|reply| reply.status < 400) {
            // Handed on: then it must be whole, framed once, and one request in lines that cannot be read otherwise.
            let framings = ["content-length:", "transfer-encoding:"];
            let head = reply.head.to_ascii_lowercase();
            let once = framings.iter().filter(|name| head.contains(**name)).count() <= 1;
            let is_whole = reply.complete && [&b"abc"[..], b"ok"].contains(&&*reply.body);
            let is_bare = |head: &String| head.replace("\r\n", "").contains(['\r', '\n']);
            let is_one = outcome.heads.len() <= 1 && !outcome.heads.iter().any(is_bare);
            return if once && is_whole && is_one {
                Ok(())
            } else {
                Err(format!("handed on as {:?}", reply.head))
            };
        }
        // Refused: then there is nothing else to hold.
        let may_reach = if self.reaches == usize::MAX { 1 } else { self.reaches };
        if outcome.heads.len() <= may_reach {
            Ok(())
        } else {
            Err("refused, and passed on".to_owned())
        }
    }

    /// What breaks the rule, in words.
    pub(super) fn judge(&self, outcome: &Outcome) -> Result<(), String> {
        let status = outcome.status();
        if !self.status.contains(&status) {
            return Err(format!("status {status} instead of {:?}", self.status));
        }
        if self.reaches != usize::MAX && outcome.heads.len() != self.reaches {
            return Err(format!(
                "the backend got {} requests instead of {}",
                outcome.heads.len(),
                self.reaches
            ));
        }
        let heads = outcome.heads.concat().to_ascii_lowercase();
        holds("the backend's head", &heads, &self.sees, &self.sees_not)?;
        if let Some(reply) = &outcome.reply {
            holds(
                "the answer's head",
                &reply.head.to_ascii_lowercase(),
                &self.gets,
                &self.gets_not,
            )?;
            self.judge_body(reply)?;
        }
        match self.after {
            After::Either => Ok(()),
            After::Stays if outcome.next != [200] => {
                Err(format!("the next request got {:?}", outcome.next))
            }
            After::Answers(wanted) if outcome.next != wanted => {
                Err(format!("what came behind got {:?}", outcome.next))
            }
            _ if outcome.open => Err("the connection stays open".to_owned()),
            _ if !outcome.surplus.is_empty() => {
                Err(format!("more was said: {:?}", String::from_utf8_lossy(&outcome.surplus)))
            }
            _ => Ok(()),
        }
    }

    fn judge_body(&self, reply: &Reply) -> Result<(), String> {
        if self.cut == reply.complete {
            return Err(if self.cut { "a clean end" } else { "cut short" }.to_owned());
        }
        let body = String::from_utf8_lossy(&reply.body);
        if self.body.as_ref().is_some_and(|wanted| *wanted != body) {
            return Err(format!("the body is {body:?}"));
        }
        if self.trailers.is_some_and(|wanted| wanted != reply.trailers) {
            return Err(format!("the trailers are {:?}", reply.trailers));
        }
        Ok(())
    }
}

fn holds(what: &str, text: &str, with: &[String], without: &[String]) -> Result<(), String> {
    if let Some(missing) = with.iter().find(|part| !text.contains(part.as_str())) {
        return Err(format!("{what} lacks {missing:?}: {text:?}"));
    }
    if let Some(found) = without.iter().find(|part| text.contains(part.as_str())) {
        return Err(format!("{what} has {found:?}: {text:?}"));
    }
    Ok(())
}
