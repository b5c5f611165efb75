//! What things are called in Redis.
//!
//! The braces put every key of a user into the slot of his channel, so that in a Cluster one script may
//! touch them all. `chat:<user>` is part of the contract with outside listeners; the rest is ours.

pub(super) const MESSAGES: &str = "chat:";
/// What begins the part of a name that decides its slot; no name of a user has braces.
const TAGGED: &str = "{chat:";
const SIGNALS: (&str, &str) = ("signal:{chat:", "}");
const PRESENCE: (&str, &str) = ("presence:{chat:", "}");

/// The registry of nodes lies in the slot of this user's channel; his keys have other names.
pub(super) const NODES: &str = "nodes";

/// Sorted set: the nodes that live, by their last beats.
pub(super) const NODES_ALIVE: &str = "alive:{chat:nodes}";

/// Sorted set: nodes that are gone, by their last beats.
pub(super) const NODES_GONE: &str = "gone:{chat:nodes}";

/// Where the user's messages are published, as listeners outside know it.
pub(super) fn messages(user: &str) -> String {
    [MESSAGES, user].concat()
}

/// Where passing notices to the user are published.
pub(super) fn signals(user: &str) -> String {
    [SIGNALS.0, user, SIGNALS.1].concat()
}

/// Where it is published that the user came or left. Whoever watches him wishes for it by this name, which no user can
/// have, for its braces; it lies in the slot of the user's channel.
pub(super) fn presence(user: &str) -> String {
    [PRESENCE.0, user, PRESENCE.1].concat()
}

/// The user whose presence is published on this channel.
pub(super) fn watched(channel: &str) -> Option<&str> {
    channel.strip_prefix(PRESENCE.0)?.strip_suffix(PRESENCE.1)
}

/// Sorted set: the user's seats on all nodes, `<node>.<number>`, by when they were opened.
pub(super) fn seats(user: &str) -> String {
    ["seats:{chat:", user, "}"].concat()
}

/// String: when the user was last seen, in milliseconds since the Unix epoch.
pub(super) fn last(user: &str) -> String {
    ["last:{chat:", user, "}"].concat()
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

/// String: up to when events of one key of one limit are booked; `tag` is both their names.
pub(super) fn limit(tag: &str) -> String {
    ["limit:{", tag, "}"].concat()
}

/// A fresh line: 64 random bits.
pub(super) fn line() -> String {
    format!("{:016x}", fastrand::u64(..))
}

/// What a counter is born with: 48 random bits, which must differ among the counters of one user only.
pub(super) fn birth() -> String {
    format!("{:012x}", fastrand::u64(..) >> 16)
}

/// The own channel of one process, on which it hears its own probes. `tag` stands in a slot of the primary.
pub(super) fn probe(tag: &str, node: &str) -> String {
    ["probe:", tag, ":", node].concat()
}

/// The user that a name belongs to: a user's own name, or that of a channel or key of his.
pub(super) fn owner(name: &str) -> &str {
    let tagged = name.split_once(TAGGED).and_then(|(_, rest)| rest.split_once('}'));
    tagged.map_or(name, |(user, _)| user)
}

/// The channels that a wish for `name` stands for. Of a user's two, the second is the one whose confirmation counts.
pub(super) fn channels(name: &str) -> impl Iterator<Item = String> {
    let (first, second) = match watched(name) {
        Some(_) => (name.to_owned(), None),
        None => (messages(name), Some(signals(name))),
    };
    [first].into_iter().chain(second)
}

/// What a subscribed channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel<'a> {
    Messages(&'a str),
    Signals(&'a str),
    Presence(&'a str),
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
        } else if let Some(user) = watched(name) {
            Self::Presence(user)
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
            assert_eq!(Channel::parse(presence(user).as_bytes()), Channel::Presence(user));
        }
        assert_eq!(Channel::parse(probe("{7}", "1").as_bytes()), Channel::Other);
        assert_eq!(Channel::parse(b"chat:\xff"), Channel::Other);
    }

    #[test]
    fn a_name_tells_whose_it_is() {
        assert_eq!(owner("bob"), "bob");
        assert_eq!(owner("chat:x"), "chat:x");
        assert_eq!(owner(&signals("bob")), "bob");
        assert_eq!(owner(&presence("bob")), "bob");
        assert_eq!(owner(&seen("bob", "alice 1")), "bob");
    }

    #[test]
    fn names_of_the_contract() {
        assert_eq!(messages("bob"), "chat:bob");
        assert_eq!(inbox("bob"), "inbox:{chat:bob}");
    }
}
