//! What the kernel counts for another process: processor time and resident memory.

use std::fs;
use std::str::FromStr;

/// Clock ticks a second in `/proc`: `USER_HZ`, 100 on every Linux architecture in use.
const TICKS: f64 = 100.0;

/// A process to be measured, as `name=pid` on the command line.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pid: u32,
}

impl FromStr for Process {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, pid) = text.split_once('=').ok_or("name=pid is needed")?;
        let pid = pid.parse().map_err(|error| format!("{pid:?} is no process id: {error}"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

impl Process {
    /// Processor seconds of all its threads since it began, in user and kernel mode.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("the process lives");
        // The second field, the command in parentheses, may hold spaces: count from its end. utime and
        // stime are fields 14 and 15, so words 11 and 12 of what follows.
        let (_, rest) = stat.rsplit_once(')').expect("a command in parentheses");
        let ticks = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|word| word.parse::<f64>().expect("ticks"));
        ticks.sum::<f64>() / TICKS
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the process lives");
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line VmRSS");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib * 1024
    }
}
