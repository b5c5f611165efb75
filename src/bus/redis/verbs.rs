//! How subscriptions are asked for: on a single server, and in a Cluster. Pure.

use super::wishes::Batch;
use super::{names, resp};

/// How subscriptions are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verbs {
    /// All of a batch in one command.
    Plain,
    /// A command a user, since one command reaches one slot; and a ping behind them.
    Cluster,
}

impl Verbs {
    /// To begin and to end.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Plain => ("SUBSCRIBE", "UNSUBSCRIBE"),
            Self::Cluster => ("SSUBSCRIBE", "SUNSUBSCRIBE"),
        }
    }

    /// A batch, as bytes.
    pub(super) fn commands(self, batch: &Batch) -> Vec<u8> {
        let mut output = Vec::new();
        let (subscribe, unsubscribe) = self.words();
        for (verb, names) in [(unsubscribe, &batch.unsubscribe), (subscribe, &batch.subscribe)] {
            let at_once = match self {
                Self::Plain => names.len().max(1),
                Self::Cluster => 1,
            };
            for names in names.chunks(at_once) {
                let channels: Vec<_> =
                    names.iter().flat_map(|name| names::channels(name)).collect();
                let words: Vec<_> =
                    [verb].into_iter().chain(channels.iter().map(String::as_str)).collect();
                resp::command(&mut output, words);
            }
        }
        if self == Self::Cluster && !output.is_empty() {
            resp::command(&mut output, ["PING"]);
        }
        output
    }
}

/// Whether a Cluster's server says that it is not the one to ask, or not now.
pub(super) fn is_elsewhere(why: &[u8]) -> bool {
    [&b"MOVED "[..], b"ASK ", b"TRYAGAIN ", b"CLUSTERDOWN "]
        .iter()
        .any(|word| why.starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        Batch { subscribe: vec!["a".into(), "b".into()], unsubscribe: vec!["gone".into()] }
    }

    fn bytes(commands: &[&[&str]]) -> Vec<u8> {
        let mut output = Vec::new();
        for words in commands {
            resp::command(&mut output, words.iter().copied());
        }
        output
    }

    #[test]
    fn a_batch_is_one_command_of_each_kind_and_ends_come_first() {
        let both = ["SUBSCRIBE", "chat:a", "signal:{chat:a}", "chat:b", "signal:{chat:b}"];
        let expected = bytes(&[&["UNSUBSCRIBE", "chat:gone", "signal:{chat:gone}"], &both]);
        assert_eq!(Verbs::Plain.commands(&batch()), expected);
        assert_eq!(Verbs::Plain.commands(&Batch::default()), b"");
    }

    #[test]
    fn in_a_cluster_each_has_a_command_and_a_ping_stands_behind_them() {
        let expected = bytes(&[
            &["SUNSUBSCRIBE", "chat:gone", "signal:{chat:gone}"],
            &["SSUBSCRIBE", "chat:a", "signal:{chat:a}"],
            &["SSUBSCRIBE", "chat:b", "signal:{chat:b}"],
            &["PING"],
        ]);
        assert_eq!(Verbs::Cluster.commands(&batch()), expected);
        assert_eq!(Verbs::Cluster.commands(&Batch::default()), b"");
    }
}
