//! When to ping, and when silence has lasted too long. Pure: the clock is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// The keepalive of one socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    next_ping: Instant,
    /// Something must have come by then; set while a ping is out.
    answer_by: Option<Instant>,
}

/// What the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Quiet,
    Ping,
    Silent,
}

impl Heartbeat {
    /// The first ping comes at a random moment within the interval, so that sockets which came together
    /// are not pinged together.
    pub(super) fn new(now: Instant, interval: Duration) -> Self {
        Self { next_ping: now + interval.mul_f64(fastrand::f64()), answer_by: None }
    }

    /// The next moment at which [`Heartbeat::beat`] says something.
    pub(super) fn deadline(&self) -> Instant {
        self.answer_by.map_or(self.next_ping, |answer_by| answer_by.min(self.next_ping))
    }

    /// What is due at `now`; a ping that it calls for is taken as sent.
    pub(super) fn beat(&mut self, now: Instant, interval: Duration, timeout: Duration) -> Beat {
        if self.answer_by.is_some_and(|answer_by| answer_by <= now) {
            return Beat::Silent;
        }
        if self.next_ping > now {
            return Beat::Quiet;
        }
        self.next_ping = now + interval;
        self.answer_by.get_or_insert(now + timeout);
        Beat::Ping
    }

    /// Something came.
    pub(super) fn heard(&mut self) {
        self.answer_by = None;
    }

    /// A blocked write went on: the reader is slow, but there; the ping is still behind that write.
    pub(super) fn moved(&mut self, now: Instant, timeout: Duration) {
        if let Some(answer_by) = &mut self.answer_by {
            *answer_by = now + timeout;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);
    const TIMEOUT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn silence_after_a_ping_is_noticed_in_time() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, INTERVAL);
        let ping = heartbeat.deadline();
        assert!(ping <= start + INTERVAL);
        assert_eq!(heartbeat.beat(ping, INTERVAL, TIMEOUT), Beat::Ping);
        assert_eq!(heartbeat.deadline(), ping + TIMEOUT);
        assert_eq!(heartbeat.beat(ping + TIMEOUT / 2, INTERVAL, TIMEOUT), Beat::Quiet);
        assert_eq!(heartbeat.beat(ping + TIMEOUT, INTERVAL, TIMEOUT), Beat::Silent);
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_comes_is_life() {
        let mut heartbeat = Heartbeat::new(Instant::now(), INTERVAL);
        let ping = heartbeat.deadline();
        assert_eq!(heartbeat.beat(ping, INTERVAL, TIMEOUT), Beat::Ping);
        heartbeat.heard();
        assert_eq!(heartbeat.deadline(), ping + INTERVAL);
        assert_eq!(heartbeat.beat(ping + INTERVAL, INTERVAL, TIMEOUT), Beat::Ping);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_ping_does_not_grant_more_time() {
        let mut heartbeat = Heartbeat::new(Instant::now(), Duration::from_secs(1));
        let ping = heartbeat.deadline();
        let next = ping + Duration::from_secs(1);
        heartbeat.beat(ping, Duration::from_secs(1), TIMEOUT);
        assert_eq!(heartbeat.beat(next, Duration::from_secs(1), TIMEOUT), Beat::Ping);
        assert_eq!(heartbeat.beat(ping + TIMEOUT, Duration::from_secs(1), TIMEOUT), Beat::Silent);
    }
}
