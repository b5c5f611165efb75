//! What the gateway and the guard of a process say to each other: lines over a socket pair, which both ends own, so that
//! the end of either is told to the other by the system, however it came.

use std::fmt;

use super::exit::Exit;

/// The longest line of either.
pub(super) const MAX_LINE: usize = 512;

/// What the gateway says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The stop signal goes to the process and its group; what is left has until a kill.
    Stop,
    /// Everything is killed.
    Kill,
}

impl Order {
    pub(super) fn line(self) -> &'static str {
        match self {
            Self::Stop => "stop\n",
            Self::Kill => "kill\n",
        }
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        match line.trim_end() {
            "stop" => Some(Self::Stop),
            "kill" => Some(Self::Kill),
            _ => None,
        }
    }
}

/// What the guard says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The process runs, under this id.
    Started(i32),
    /// It and all that descends from it are gone.
    Ended(Exit),
    /// It could not be started.
    Failed(String),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(pid) => writeln!(f, "started {pid}"),
            Self::Ended(Exit::Code(code)) => writeln!(f, "code {code}"),
            Self::Ended(Exit::Signal(signal)) => writeln!(f, "signal {signal}"),
            Self::Ended(Exit::Unknown) => writeln!(f, "unknown"),
            Self::Failed(why) => {
                let why: String =
                    why.chars().filter(|c| !c.is_control()).take(MAX_LINE / 8).collect();
                writeln!(f, "failed {why}")
            }
        }
    }
}

impl Report {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        Some(match word {
            "started" => Self::Started(rest.parse().ok().filter(|pid| *pid > 0)?),
            "code" => Self::Ended(Exit::Code(rest.parse().ok()?)),
            "signal" => Self::Ended(Exit::Signal(rest.parse().ok()?)),
            "unknown" => Self::Ended(Exit::Unknown),
            "failed" => Self::Failed(rest.to_owned()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_says_the_other_reads() {
        for order in [Order::Stop, Order::Kill] {
            assert_eq!(Order::parse(order.line()), Some(order));
        }
        for report in [
            Report::Started(7),
            Report::Ended(Exit::Code(3)),
            Report::Ended(Exit::Signal(9)),
            Report::Ended(Exit::Unknown),
            Report::Failed("no such file".to_owned()),
        ] {
            assert_eq!(Report::parse(&report.to_string()), Some(report));
        }
        for line in ["", "started", "started -1", "code x", "hello"] {
            assert_eq!(Report::parse(line), None, "{line}");
        }
        let long = Report::Failed("é\n".repeat(4_000)).to_string();
        assert!(long.len() <= MAX_LINE && long.matches('\n').count() == 1);
    }
}
