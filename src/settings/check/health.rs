//! Contradictions in what judges the health of backends.

use super::{Check, shown};

impl Check<'_> {
    pub(super) fn health(&mut self) {
        let (health, breaker) = (&self.settings.health, &self.settings.breaker);
        for (short, shorter, long, longer) in [
            ("health.eject", health.eject, "health.eject_max", health.eject_max),
            ("breaker.open", breaker.open, "breaker.open_max", breaker.open_max),
        ] {
            if shorter > longer {
                let (shorter, longer) = (shown(shorter), shown(longer));
                let message =
                    format!("{short}, {shorter}, must not be longer than {long}, {longer}");
                self.say(&[short, long], message);
            }
        }
        if breaker.enabled && breaker.consecutive == 0 && breaker.failure_percent == 0 {
            let message = "nothing opens the breaker; set consecutive or failure_percent";
            let keys = ["breaker.enabled", "breaker.consecutive", "breaker.failure_percent"];
            self.say(&keys, message.to_owned());
        }
    }
}
