//! The rates that seats, users and regions are held to, as the settings and a few fixed proportions make them.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::rate::Rate;
use crate::settings::HubSettings;

/// One error frame is forgiven after this time.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// Refusals for the rate that every client may cause at once: one that sends what it has saved up, or does
/// not know the rate, is told frame by frame, and stays.
const LEAST_REFUSED: u32 = 1_000;

/// … or as many bursts, where the setting allows more than that at once.
const BURSTS_REFUSED: u32 = 5;

/// A user's connects while a region is busy with others, too: one in so long, and so many at once. All his devices and
/// tabs may come back together; a client that comes and goes in a circle may not.
const USER_CONNECTS: (Duration, NonZeroU32) =
    (Duration::from_millis(200), NonZeroU32::MIN.saturating_add(31));

/// What a user's budget is by default, in budgets of one connection: someone with a few devices and tabs does not
/// notice it.
const CONNECTIONS_WORTH: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);

/// The rates that every seat, user and region of the process is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) messages: Rate,
    /// The same over all seats of one user.
    pub(super) user_messages: Rate,
    /// Sockets that one region takes.
    pub(super) connects: Rate,
    /// … of one user, while half of what it takes at once is used up.
    pub(super) user_connects: Rate,
    pub(super) bad_frames: Rate,
    /// Frames over `messages`, each answered with an error; past this they are a flood, and the seat is
    /// closed. Not counted from one accepted frame to the next: at 100 a second a flood of
    /// 50,000 has one accepted in every 500, and would never end.
    pub(super) refusals: Rate,
}

impl Rates {
    pub(super) fn new(settings: &HubSettings) -> Self {
        let burst = settings.message_burst;
        let refused = LEAST_REFUSED.max(burst.get().saturating_mul(BURSTS_REFUSED));
        let refused = NonZeroU32::new(refused).unwrap_or(burst);
        let of_user = |own: u32, of_one: NonZeroU32| {
            NonZeroU32::new(own).unwrap_or(of_one.saturating_mul(CONNECTIONS_WORTH))
        };
        Self {
            user_messages: Rate::per_second(
                of_user(settings.user_messages_per_second, settings.messages_per_second),
                of_user(settings.user_message_burst, burst),
            ),
            user_connects: Rate::new(USER_CONNECTS.0, USER_CONNECTS.1),
            connects: Rate::per_second(settings.connects_per_second, settings.connect_burst),
            messages: Rate::per_second(settings.messages_per_second, settings.message_burst),
            bad_frames: Rate::new(FORGIVEN_AFTER, settings.max_bad_frames),
            refusals: Rate::per_second(refused, refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Budget;

    fn nz(value: u32) -> NonZeroU32 {
        NonZeroU32::new(value).unwrap()
    }

    /// What a seat has used, and the moment.
    #[derive(Default)]
    struct Sender {
        messages: Budget,
        refusals: Budget,
        now: Duration,
        refused: u32,
    }

    impl Sender {
        /// Sends one frame; whether it was accepted, or nothing when the seat is closed.
        fn send(&mut self, rates: &Rates) -> Option<bool> {
            let accepted = self.messages.take(&rates.messages, self.now);
            self.refused += u32::from(!accepted);
            (accepted || self.refusals.take(&rates.refusals, self.now)).then_some(accepted)
        }
    }

    #[test]
    fn a_flood_is_ended_though_some_of_it_is_accepted() {
        let rates = Rates::new(&HubSettings::default());
        let mut sender = Sender::default();
        while sender.send(&rates).is_some() {
            sender.now += Duration::from_micros(20);
            assert!(sender.refused < 1_100, "still open at {:?}", sender.now);
        }
        assert!(sender.refused > 1_000);
    }

    #[test]
    fn who_sends_a_thousand_at_once_and_what_is_refused_again_gets_all_through() {
        let rates = Rates::new(&HubSettings::default());
        let mut sender = Sender::default();
        let mut left = 1_000;
        while left > 0 {
            let accepted = (0..left).filter(|_| sender.send(&rates).expect("it stays open"));
            left -= accepted.count();
            sender.now += Duration::from_secs(1);
        }
        assert!(sender.now < Duration::from_secs(12), "{:?}", sender.now);
    }

    #[test]
    fn a_greater_burst_bears_more_refusals() {
        for (burst, most) in [(1, 1_000), (200, 1_000), (201, 1_005), (2_000, 10_000)] {
            let settings = HubSettings { message_burst: nz(burst), ..HubSettings::default() };
            let rates = Rates::new(&settings);
            let mut sender = Sender::default();
            while sender.send(&rates).is_some() {}
            assert_eq!(sender.refused, most + 1, "at a burst of {burst}");
        }
    }
}
