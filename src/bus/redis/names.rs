//! What things are called in Redis.
//!
//! The braces put every key of a user into the slot of his channel, so that in a Cluster one script may
//! touch them all. `chat:<user>` is part of the contract with outside listeners; the rest is ours.

/// What puts keys of the server's own into a slot that it serves.
pub(super) const TAG: &str = "{shard}";

const MESSAGES: &str = "chat:";
const SIGNALS: (&str, &str) = ("signal:{chat:", "}");

/// Where the user's messages are published, as listeners outside know it.
pub(super) fn messages(user: &str) -> String {
    [MESSAGES, user].concat()
}

/// Where passing notices to the user are published.
pub(super) fn signals(user: &str) -> String {
    [SIGNALS.0, user, SIGNALS.1].concat()
}

/// Hash: `birth`, what the counter was born with, and `seq`, the last position given out.
pub(super) fn meta(user: &str) -> String {
    ["meta:{chat:", user, "}"].concat()
}

/// List: the last payloads, contiguous up to the last position.
pub(super) fn inbox(user: &str) -> String {
    ["inbox:{chat:", user, "}"].concat()
}

/// String: the receipt of one message, for repeats.
pub(super) fn seen(user: &str, dedupe_key: &str) -> String {
    ["seen:{chat:", user, "}:", dedupe_key].concat()
}

/// Hash: the line of a primary's history, and whose it was when that was settled. `tag` stands in a slot of it.
pub(super) fn lineage(tag: &str) -> String {
    ["lineage:", tag].concat()
}

/// String: what a barrier writes. `tag` stands in a slot of the primary.
pub(super) fn barrier(tag: &str) -> String {
    ["barrier:", tag].concat()
}

/// A fresh line: 64 random bits.
pub(super) fn line() -> String {
    format!("{:016x}", fastrand::u64(..))
}

/// What a counter is born with: 48 random bits, which must differ among the counters of one user only.
pub(super) fn birth() -> String {
    format!("{:012x}", fastrand::u64(..) >> 16)
}

/// The own channel of one process, on which it hears its own probes.
pub(super) fn probe(node: &str) -> String {
    ["probe:", node].concat()
}

/// What a subscribed channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel<'a> {
    Messages(&'a str),
    Signals(&'a str),
    /// A probe, or something nobody asked for.
    Other,
}

impl<'a> Channel<'a> {
    pub(super) fn parse(name: &'a [u8]) -> Self {
        let Ok(name) = str::from_utf8(name) else { return Self::Other };
        if let Some(user) = name.strip_prefix(MESSAGES) {
            Self::Messages(user)
        } else if let Some(user) =
            name.strip_prefix(SIGNALS.0).and_then(|rest| rest.strip_suffix(SIGNALS.1))
        {
            Self::Signals(user)
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_read_as_they_are_written() {
        for user in ["bob", "a:b", "*", "\"", "chat:x", "probe:x", "x}"] {
            assert_eq!(Channel::parse(messages(user).as_bytes()), Channel::Messages(user));
            assert_eq!(Channel::parse(signals(user).as_bytes()), Channel::Signals(user));
        }
        assert_eq!(Channel::parse(probe("1").as_bytes()), Channel::Other);
        assert_eq!(Channel::parse(b"chat:\xff"), Channel::Other);
    }

    #[test]
    fn names_of_the_contract() {
        assert_eq!(messages("bob"), "chat:bob");
        assert_eq!(inbox("bob"), "inbox:{chat:bob}");
    }
}
