//! What happens next: a step drawn at random among those that the world can take.

/// What the servers keep on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// Every write, before it is answered.
    EveryWrite,
    /// A snapshot, when they are told to make one.
    Snapshots,
}

/// One thing that happens. Numbers that pick among what there is are taken modulo how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A new message to this user, through this gateway.
    Publish {
        user: usize,
        gateway: usize,
    },
    /// Some in a row, which may push others out of the inbox.
    Burst {
        user: usize,
        gateway: usize,
        messages: usize,
    },
    /// A message that was acknowledged before, the `back`-th last, once more.
    Repeat {
        user: usize,
        gateway: usize,
        back: usize,
    },
    /// A message whose ack gets lost on the way from Redis.
    Unheard {
        user: usize,
        gateway: usize,
    },
    Connect {
        device: usize,
        gateway: usize,
        with: With,
    },
    Disconnect {
        device: usize,
    },
    /// Notes the position that the device has, to come back with much later.
    Remember {
        device: usize,
    },
    /// The user's counter is gone from Redis.
    DeleteCounter {
        user: usize,
    },
    /// The user's messages are gone from Redis.
    DeleteInbox {
        user: usize,
    },
    /// The same, by their age.
    ExpireInbox {
        user: usize,
    },
    /// All is gone from Redis.
    Flush,
    /// Redis ends these connections of its clients.
    KillClients {
        subscribers: bool,
    },
    /// All connections of a gateway to Redis break.
    Cut {
        gateway: usize,
    },
    /// Redis writes a snapshot of what it has.
    Snapshot,
    /// `kill -9`
    Down,
    /// Redis is started again, with what it has on disk; `wait` goes on only when all gateways are ready.
    Up {
        wait: bool,
    },
    /// The replica gets nothing any more.
    Part,
    /// The replica takes the primary's place, with what it has, and gets a replica of its own.
    Promote,
}

/// What a device says of where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum With {
    /// Nothing: it wants what comes from now on.
    Nothing,
    /// The position that it has.
    Own,
    /// One of those that were remembered, with what was known then.
    Remembered(usize),
    /// A position after the last one of its own history.
    Future,
    /// A history that never was.
    MadeUp,
    /// A position without its history.
    NoEpoch,
}

/// What the next step depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) up: bool,
    pub(super) parted: bool,
    pub(super) users: usize,
    pub(super) devices: usize,
}

pub(super) struct Schedule {
    random: fastrand::Rng,
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed) }
    }

    /// What the servers keep on disk.
    pub(super) fn files(&mut self) -> Files {
        if self.random.bool() { Files::EveryWrite } else { Files::Snapshots }
    }

    pub(super) fn next(&mut self, view: &View) -> Step {
        if !view.up && self.random.u32(..5) == 0 {
            return Step::Up { wait: self.random.bool() };
        }
        loop {
            let step = self.any(view);
            let possible = match step {
                Step::Publish { .. }
                | Step::Connect { .. }
                | Step::Disconnect { .. }
                | Step::Promote => true,
                Step::Up { .. } => !view.up,
                Step::Part => view.up && !view.parted,
                _ => view.up,
            };
            if possible {
                return step;
            }
        }
    }

    fn any(&mut self, view: &View) -> Step {
        let random = &mut self.random;
        let user = random.usize(..view.users);
        let device = random.usize(..view.devices);
        let gateway = random.usize(..2);
        match random.u32(..100) {
            0..26 => Step::Publish { user, gateway },
            26..32 => Step::Burst { user, gateway, messages: random.usize(2..14) },
            32..37 => Step::Repeat { user, gateway, back: random.usize(..12) },
            37..40 => Step::Unheard { user, gateway },
            40..60 => Step::Connect { device, gateway, with: with(random) },
            60..66 => Step::Disconnect { device },
            66..71 => Step::Remember { device },
            71..73 => Step::DeleteCounter { user },
            73..75 => Step::DeleteInbox { user },
            75..77 => Step::ExpireInbox { user },
            77 => Step::Flush,
            78..80 => Step::KillClients { subscribers: random.bool() },
            80..82 => Step::Cut { gateway },
            82..84 => Step::Snapshot,
            84..87 => Step::Down,
            87..94 => Step::Up { wait: random.bool() },
            94..97 => Step::Part,
            _ => Step::Promote,
        }
    }
}

fn with(random: &mut fastrand::Rng) -> With {
    match random.u32(..10) {
        0 => With::Nothing,
        1..6 => With::Own,
        6 | 7 => With::Remembered(random.usize(..8)),
        8 => With::Future,
        _ if random.bool() => With::MadeUp,
        _ => With::NoEpoch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(seed: u64, view: View) -> Vec<Step> {
        let mut schedule = Schedule::new(seed);
        (0..2_000).map(|_| schedule.next(&view)).collect()
    }

    const VIEW: View = View { up: true, parted: false, users: 2, devices: 3 };

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(steps(7, VIEW), steps(7, VIEW));
        assert_ne!(steps(7, VIEW), steps(8, VIEW));
    }

    #[test]
    fn only_what_is_possible_is_drawn() {
        assert!(!steps(7, VIEW).contains(&Step::Up { wait: true }));
        assert!(!steps(7, View { parted: true, ..VIEW }).contains(&Step::Part));
        let down = steps(7, View { up: false, ..VIEW });
        assert!(down.contains(&Step::Up { wait: true }) && !down.contains(&Step::Down));
        assert!(!down.contains(&Step::Flush) && down.contains(&Step::Promote));
    }
}
