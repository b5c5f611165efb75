//! The bookkeeper of the fault tests: what a user was promised, what one of his devices was shown, and where the two
//! do not agree.
//!
//! Walk: a sender notes in the recipient's [`Post`] each message that goes out and each ack that comes back; the
//! recipient's [`Reader`] is given every welcome, reset and message in the order of arrival, and judges each at once;
//! [`Account::of`] holds both against each other at the end.
//!
//! Invariants: whatever the gateway may answer for is judged by PROTOCOL alone, never by how it works inside; times
//! are handed in, so that all of this is arithmetic. A message counts as told to be gone only where its reader
//! heard of a loss after the last time it was sent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

/// What names a message: its sender and the sender's id for it.
pub(crate) type Key = (String, String);

/// Epoch and sequence number.
pub(crate) type Position = (String, u64);

/// Violations that are described in words; the rest is only counted.
const WORDS: usize = 20;

/// Everything that was sent to one user.
#[derive(Debug, Default)]
pub(crate) struct Post {
    letters: BTreeMap<Key, Letter>,
}

#[derive(Debug)]
struct Letter {
    first_sent: Duration,
    last_sent: Duration,
    /// It was not in the store before.
    stored: Duration,
    acked: Option<Duration>,
}

impl Post {
    /// The message goes out, for the first time or again.
    pub(crate) fn sent(&mut self, now: Duration, key: Key) {
        let new = Letter { first_sent: now, last_sent: now, stored: now, acked: None };
        let letter = self.letters.entry(key).or_insert(new);
        if letter.acked.is_none() {
            letter.last_sent = now;
        }
    }

    /// The hub has promised to deliver it, or, where it is a `duplicate`, says that it had promised it before.
    pub(crate) fn acked(&mut self, now: Duration, key: &Key, duplicate: bool) {
        let letter = self.letters.get_mut(key).expect("only what was sent is acknowledged");
        if letter.acked.is_none() {
            letter.acked = Some(now);
            // Which of the earlier sendings brought a duplicate there, nobody knows.
            letter.stored = if duplicate { letter.first_sent } else { letter.last_sent };
        }
    }

    /// What was acknowledged before is sent once more.
    pub(crate) fn repeated(&mut self, now: Duration, key: &Key) {
        self.letters.get_mut(key).expect("it was sent before").last_sent = now;
    }

    /// The store had forgotten it, and took the repeat for a new message.
    pub(crate) fn stored_again(&mut self, key: &Key) {
        let letter = self.letters.get_mut(key).expect("it was sent before");
        letter.first_sent = letter.last_sent;
        letter.stored = letter.last_sent;
    }

    fn acknowledged(&self) -> impl Iterator<Item = (&Key, &Letter)> {
        self.letters.iter().filter(|(_, letter)| letter.acked.is_some())
    }

    /// What `reader` has a right to.
    fn owed<'a>(&'a self, reader: &Reader) -> impl Iterator<Item = (&'a Key, &'a Letter)> {
        let born = reader.born;
        self.acknowledged().filter(move |(_, letter)| letter.first_sent >= born)
    }
}

/// How a reader may be wronged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wrong {
    /// The same message again, with nothing said in between.
    Doubled,
    /// A position that does not follow: before or at the last one.
    Backwards,
    /// A position that does not follow: others were passed over without a word.
    Hole,
    /// Two messages at one position of one epoch: the history was rewritten behind the reader's back.
    Rewritten,
    /// `resumed:true` at another position than the one that was asked for.
    Resumed,
    /// A message before any position was named.
    Unplaced,
}

/// What one device of a user was shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reader {
    /// When it connected for the first time; what was sent before is not for it.
    born: Duration,
    position: Option<Position>,
    /// Welcomed without a position, while the hub had no bus; nothing may come before a reset.
    blind: bool,
    shown: HashMap<Key, Duration>,
    /// Shown since the reader was last told that repeats may come.
    since_told: HashSet<Key>,
    at: HashMap<Position, Key>,
    told: Vec<Duration>,
    repeats: u64,
    wrongs: HashMap<Wrong, u64>,
    words: Vec<String>,
}

impl Reader {
    /// One that wants what comes from now on.
    pub(crate) fn new(now: Duration) -> Self {
        Self { born: now, ..Self::default() }
    }

    /// How often it was told that something is gone.
    pub(crate) fn told(&self) -> usize {
        self.told.len()
    }

    /// The violations, as far as they were noted in words.
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    /// What to resume with.
    pub(crate) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    pub(crate) fn was_shown(&self, key: &Key) -> bool {
        self.shown.contains_key(key)
    }

    pub(crate) fn wrong(&self, wrong: Wrong) -> u64 {
        self.wrongs.get(&wrong).copied().unwrap_or_default()
    }

    /// The first frame of a connection, for which `asked` was the position to resume after.
    pub(crate) fn welcomed(&mut self, now: Duration, asked: Option<&Position>, frame: &Value) {
        let position = position_of(frame);
        self.blind = position.0.is_empty();
        let resumed = frame["resumed"] == true;
        if self.blind {
            if resumed {
                self.note(Wrong::Resumed, &format!("a promise without a position: {frame}"));
            }
            return;
        }
        match asked {
            Some(asked) if resumed && *asked != position => {
                self.note(Wrong::Resumed, &format!("asked for {asked:?}, and got {frame}"));
            }
            None if resumed => {
                self.note(Wrong::Resumed, &format!("nothing was asked for: {frame}"));
            }
            Some(_) if !resumed => self.hear_of_loss(now),
            _ => {}
        }
        self.position = Some(position);
    }

    /// A `reset`.
    pub(crate) fn reset(&mut self, now: Duration, frame: &Value) {
        let position = position_of(frame);
        self.blind = false;
        match &self.position {
            // Where a hub without a bus could promise nothing, this is what it finds out later: nothing is gone.
            Some(own) if *own == position => return,
            // Later in the same history: a part is gone, and nothing comes again.
            Some((epoch, seq)) if *epoch == position.0 && *seq < position.1 => self.told.push(now),
            // Also where its first connection began while the bus was away: what came until now is not promised.
            Some(_) | None => self.hear_of_loss(now),
        }
        self.position = Some(position);
    }

    fn hear_of_loss(&mut self, now: Duration) {
        self.told.push(now);
        self.since_told.clear();
    }

    /// A `message`.
    pub(crate) fn message(&mut self, now: Duration, frame: &Value) {
        let text = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
        let key = (text("from"), text("id"));
        let seq = frame["seq"].as_u64().unwrap_or_default();
        match &self.position {
            Some((_, last)) if !self.blind => {
                if seq <= *last {
                    self.note(Wrong::Backwards, &format!("{seq} after {last}: {key:?}"));
                } else if seq != last + 1 {
                    self.note(Wrong::Hole, &format!("{seq} after {last}: {key:?}"));
                }
            }
            _ => self.note(Wrong::Unplaced, &format!("{seq}: {key:?}")),
        }
        if let Some((epoch, last)) = &mut self.position {
            *last = seq;
            let before = self.at.entry((epoch.clone(), seq)).or_insert_with(|| key.clone());
            if *before != key {
                let words = format!("{seq} of {epoch} was {before:?} and is {key:?}");
                self.note(Wrong::Rewritten, &words);
            }
        }
        if !self.since_told.insert(key.clone()) {
            self.note(Wrong::Doubled, &format!("{seq}: {key:?}"));
        } else if self.shown.contains_key(&key) {
            self.repeats += 1;
        }
        self.shown.entry(key).or_insert(now);
    }

    fn note(&mut self, wrong: Wrong, words: &str) {
        *self.wrongs.entry(wrong).or_default() += 1;
        if self.words.len() < WORDS {
            self.words.push(format!("{wrong:?}: {words}"));
        }
    }

    /// Whether it heard of a loss at `sent` or later.
    fn told_since(&self, sent: Duration) -> bool {
        self.told.last().is_some_and(|told| *told >= sent)
    }
}

fn position_of(frame: &Value) -> Position {
    let epoch = frame["epoch"].as_str().unwrap_or_default().to_owned();
    (epoch, frame["seq"].as_u64().unwrap_or_default())
}

/// What it all came to, of one reader or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    /// Of those acknowledged, the ones that were shown.
    pub(crate) delivered: u64,
    /// Acknowledged, never shown, and nothing said of it.
    pub(crate) lost: u64,
    /// Acknowledged, never shown, and a loss was told after they were sent.
    pub(crate) told_lost: u64,
    pub(crate) doubled: u64,
    /// Shown again after `resumed:false` or a reset, where clients drop repeats.
    pub(crate) repeats: u64,
    /// Positions that did not follow, or whose message changed.
    pub(crate) disordered: u64,
    /// `resumed:true` where that was not so.
    pub(crate) resumed_wrongly: u64,
    /// Times that a reader was told of a loss.
    pub(crate) told: u64,
    pub(crate) words: Vec<String>,
}

impl Account {
    /// Holds what was sent to a user against what one of his devices, connected since before, was shown.
    pub(crate) fn of(post: &Post, reader: &Reader) -> Self {
        let wrongs = |kinds: &[Wrong]| kinds.iter().map(|kind| reader.wrong(*kind)).sum();
        let mut account = Self {
            sent: post.letters.len() as u64,
            doubled: wrongs(&[Wrong::Doubled]),
            disordered: wrongs(&[Wrong::Backwards, Wrong::Hole, Wrong::Rewritten, Wrong::Unplaced]),
            resumed_wrongly: wrongs(&[Wrong::Resumed]),
            repeats: reader.repeats,
            told: reader.told.len() as u64,
            words: reader.words.clone(),
            ..Self::default()
        };
        for (key, letter) in post.owed(reader) {
            account.acknowledged += 1;
            if reader.shown.contains_key(key) {
                account.delivered += 1;
            } else if reader.told_since(letter.stored) {
                account.told_lost += 1;
            } else {
                account.lost += 1;
                if account.words.len() < WORDS {
                    account.words.push(format!("Lost: {key:?}, {letter:?}"));
                }
            }
        }
        account
    }

    /// Nothing stands in a column that must be zero.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.disordered + self.resumed_wrongly == 0
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.told_lost += other.told_lost;
        self.doubled += other.doubled;
        self.repeats += other.repeats;
        self.disordered += other.disordered;
        self.resumed_wrongly += other.resumed_wrongly;
        self.told += other.told;
        self.words.extend(other.words);
        self.words.truncate(WORDS);
    }

    /// The violations in words, a line each.
    pub(crate) fn explain(&self) -> String {
        let mut lines = String::new();
        for words in &self.words {
            writeln!(lines, "    {words}").unwrap();
        }
        lines
    }
}

/// When, after `since`, the first message that was first sent after it had been both acknowledged and shown.
pub(crate) fn recovered(post: &Post, reader: &Reader, since: Duration) -> Option<Duration> {
    post.acknowledged()
        .filter(|(_, letter)| letter.first_sent >= since)
        .filter_map(|(key, letter)| Some((*reader.shown.get(key)?).max(letter.acked?)))
        .min()
        .map(|at| at.saturating_sub(since))
}

/// Whether all that the reader has a right to has been shown, or is covered by a loss that was told.
pub(crate) fn is_settled(post: &Post, reader: &Reader) -> bool {
    post.owed(reader).all(|(key, letter)| reader.was_shown(key) || reader.told_since(letter.stored))
}

#[cfg(test)]
mod tests;
