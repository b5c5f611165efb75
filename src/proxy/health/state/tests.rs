//! One backend's health, from outcomes to marks, with time that the tests move.

use std::num::NonZeroU32;

use http::StatusCode;
use tokio::time::advance;

use super::*;
use crate::observability::{Registry, encode};
use crate::settings::{BreakerSettings, HealthSettings, ProbeKind, RegionHealthSettings};

struct Patient {
    health: Health,
    registry: Registry,
}

impl Patient {
    fn new(change: impl FnOnce(&mut HealthSettings, &mut BreakerSettings)) -> Self {
        let (mut health, mut breaker) = (HealthSettings::default(), BreakerSettings::default());
        change(&mut health, &mut breaker);
        let rules = rules(&health, &breaker);
        let mut registry = Registry::default();
        let families = HealthFamilies::register(&mut registry);
        let health = Health::new("1", "a:1", &rules, (&families, Clock::start()));
        Self { health, registry }
    }

    fn answers(&self, status: u16, took: u64, trial: Trial) {
        let status = StatusCode::from_u16(status).unwrap();
        let took = Duration::from_millis(took);
        self.health.outcome(Outcome::Answered { status, took }, trial);
    }

    fn fails(&self, cause: Cause, times: usize) {
        for _ in 0..times {
            self.health.outcome(Outcome::Failed(cause), Trial::No);
        }
    }

    /// Lets time pass, and a tick come.
    async fn after(&self, millis: u64) {
        advance(Duration::from_millis(millis)).await;
        self.health.tick();
    }

    /// The marks as the status page names them.
    fn state(&self) -> Vec<&'static str> {
        self.health.snapshot().marks.iter().map(|mark| mark.mark).collect()
    }

    fn series(&self, line: &str) -> bool {
        let text = encode(&self.registry).unwrap();
        let found = text.lines().any(|one| one == line);
        if !found {
            println!("{text}");
        }
        found
    }
}

fn rules(health: &HealthSettings, breaker: &BreakerSettings) -> Arc<Rules> {
    let region = RegionHealthSettings::default();
    let fail_timeout = Duration::from_secs(10);
    Arc::new(Rules::new(health, &region, breaker, fail_timeout))
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject_and_a_good_end_breaks_the_row() {
    let patient = Patient::new(|_, _| {});
    patient.fails(Cause::Reset, 4);
    patient.answers(200, 1, Trial::No);
    patient.fails(Cause::Garbage, 4);
    assert!(patient.health.marks().is_clear());
    patient.fails(Cause::HeadTimeout, 1);
    assert!(patient.health.standing().ejected && !patient.health.standing().out);
    let snapshot = patient.health.snapshot();
    assert_eq!(snapshot.state, "ejected");
    let why = "5 exchanges in a row failed, the last: head_timeout";
    assert_eq!(snapshot.marks[0].why, why);
    assert!(snapshot.marks[0].until > Some(snapshot.marks[0].since.clone()));
    let labels = "region=\"1\",backend=\"a:1\"";
    assert!(patient.series(&format!("proxy_backend_up{{{labels},by=\"passive\"}} 0")));
    let ejections = format!("proxy_backend_ejections_total{{{labels},reason=\"consecutive\"}} 1");
    assert!(patient.series(&ejections));
    patient.after(10_000).await;
    assert!(patient.health.marks().is_clear());
    // What had failed before the ejection, and in it, is forgotten.
    patient.fails(Cause::Reset, 4);
    assert!(patient.health.marks().is_clear());
    patient.fails(Cause::Reset, 1);
    patient.after(10_000).await;
    assert!(patient.health.standing().ejected, "the second one takes twice as long");
}

#[tokio::test(start_paused = true)]
async fn a_share_of_failures_ejects_with_the_next_tick() {
    let patient = Patient::new(|health, _| health.consecutive = 0);
    for _ in 0..10 {
        patient.answers(200, 1, Trial::No);
        patient.fails(Cause::Reset, 1);
    }
    assert!(patient.health.marks().is_clear());
    patient.after(250).await;
    assert_eq!(patient.state(), ["ejected"]);
    let why = patient.health.snapshot().marks[0].why.clone();
    assert_eq!(why, "10 of 20 exchanges within 10s failed");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_takes_the_good_word_back() {
    let patient = Patient::new(|health, _| health.failure_percent = 100);
    for _ in 0..20 {
        patient.answers(200, 1, Trial::No);
        patient.fails(Cause::Aborted, 1);
    }
    patient.after(250).await;
    assert_eq!(patient.state(), ["ejected"]);
}

#[tokio::test(start_paused = true)]
async fn bodies_that_break_off_in_a_row_eject_although_their_heads_were_good() {
    let patient = Patient::new(|_, _| {});
    let breaks_off = |times: usize| {
        for _ in 0..times {
            patient.answers(200, 1, Trial::No);
            patient.fails(Cause::Aborted, 1);
        }
    };
    breaks_off(4);
    assert!(patient.health.marks().is_clear());
    // One that came whole ends the row.
    patient.answers(200, 1, Trial::No);
    patient.health.whole();
    breaks_off(4);
    assert!(patient.health.marks().is_clear());
    breaks_off(1);
    assert_eq!(patient.state(), ["ejected"]);
    let why = "5 exchanges in a row failed, the last: aborted";
    assert_eq!(patient.health.snapshot().marks[0].why, why);
    // They add up with the failures since the last head.
    patient.after(10_000).await;
    breaks_off(2);
    patient.fails(Cause::Reset, 2);
    assert!(patient.health.marks().is_clear());
    patient.fails(Cause::Reset, 1);
    assert_eq!(patient.state(), ["ejected"]);
}

#[tokio::test(start_paused = true)]
async fn a_trial_whose_body_breaks_off_has_failed() {
    let patient = Patient::new(with_breaker);
    patient.fails(Cause::Reset, 3);
    patient.after(6_000).await;
    assert_eq!(patient.health.admit(), Some(Trial::Yes));
    patient.answers(200, 1, Trial::Yes);
    patient.fails(Cause::Aborted, 1);
    assert_eq!(patient.state(), ["open"]);
    patient.after(12_000).await;
    assert_eq!(patient.state(), ["half-open"]);
    for _ in 0..2 {
        assert_eq!(patient.health.admit(), Some(Trial::Yes));
        patient.answers(200, 1, Trial::Yes);
        patient.health.whole();
    }
    assert!(patient.health.marks().is_clear());
}

#[tokio::test(start_paused = true)]
async fn statuses_count_only_where_they_are_named() {
    let plain = Patient::new(|_, _| {});
    let counting = Patient::new(|health, _| health.count_statuses = "502-504".parse().unwrap());
    for _ in 0..30 {
        plain.answers(503, 1, Trial::No);
        counting.answers(500, 1, Trial::No);
    }
    assert!(plain.health.marks().is_clear() && counting.health.marks().is_clear());
    for _ in 0..5 {
        counting.answers(503, 1, Trial::No);
    }
    assert_eq!(counting.state(), ["ejected"]);
    assert!(counting.health.snapshot().marks[0].why.ends_with("the last: status 503"));
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_reached_is_passed_over_until_it_is_or_time_is_over() {
    let patient = Patient::new(|health, _| health.passive = false);
    patient.fails(Cause::Connect, 1);
    assert!(patient.health.standing().unreachable);
    assert_eq!(patient.state(), ["unreachable"]);
    patient.health.reached();
    assert!(patient.health.marks().is_clear());
    patient.fails(Cause::ConnectTimeout, 1);
    advance(Duration::from_secs(10)).await;
    assert!(!patient.health.standing().unreachable, "it does not take a tick");
    patient.health.tick();
    assert!(patient.health.marks().is_clear());
    patient.fails(Cause::Reset, 99);
    assert!(patient.health.marks().is_clear(), "it was reached, and passive is off");
}

fn with_breaker(_: &mut HealthSettings, breaker: &mut BreakerSettings) {
    breaker.enabled = true;
    breaker.consecutive = 3;
    breaker.slow = Some(Duration::from_secs(1));
    breaker.trials = NonZeroU32::new(2).unwrap();
    breaker.close_after = NonZeroU32::new(2).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_breaker_opens_tries_a_few_and_closes() {
    let patient = Patient::new(with_breaker);
    patient.fails(Cause::Reset, 2);
    // Slow, but well: of the two only the breaker minds.
    patient.answers(200, 1_001, Trial::No);
    assert!(patient.health.standing().out && !patient.health.standing().ejected);
    assert_eq!(patient.health.admit(), None);
    assert_eq!(patient.state(), ["open"]);
    assert!(patient.series("proxy_breaker_state{region=\"1\",backend=\"a:1\"} 2"));
    patient.after(6_000).await;
    assert_eq!(patient.state(), ["half-open"]);
    assert!(!patient.health.standing().out);
    let trials = [patient.health.admit(), patient.health.admit(), patient.health.admit()];
    assert_eq!(trials, [Some(Trial::Yes), Some(Trial::Yes), None]);
    assert!(patient.health.standing().out, "all trials are taken");
    // A client that leaves gives its trial back, and has said nothing.
    patient.health.abandoned(Trial::Yes);
    assert_eq!(patient.health.admit(), Some(Trial::Yes));
    patient.answers(200, 1, Trial::Yes);
    // One that began before it opened says nothing either.
    patient.answers(200, 1, Trial::No);
    assert_eq!(patient.state(), ["half-open"]);
    patient.answers(200, 1, Trial::Yes);
    assert!(patient.health.marks().is_clear());
    assert_eq!(patient.health.admit(), Some(Trial::No));
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_fails_opens_it_for_longer() {
    let patient = Patient::new(with_breaker);
    patient.fails(Cause::Reset, 3);
    patient.after(6_000).await;
    assert_eq!(patient.health.admit(), Some(Trial::Yes));
    patient.health.outcome(Outcome::Failed(Cause::Reset), Trial::Yes);
    assert_eq!(patient.state(), ["open"]);
    patient.after(9_999).await;
    assert_eq!(patient.state(), ["open"]);
    patient.after(2_001).await;
    assert_eq!(patient.state(), ["half-open"]);
    assert_eq!(patient.health.admit(), Some(Trial::Yes), "its trial was given back");
}

#[tokio::test(start_paused = true)]
async fn probes_call_it_down_and_up() {
    let patient = Patient::new(|health, _| health.active = ProbeKind::Tcp);
    let probe = |result: Result<(), &str>| {
        patient.health.probed(result.map_err(str::to_owned), Duration::from_millis(3));
    };
    assert_eq!(patient.health.snapshot().state, "unknown");
    assert!(patient.health.marks().is_clear(), "unknown is used");
    probe(Ok(()));
    assert_eq!(patient.health.snapshot().state, "up");
    for _ in 0..3 {
        assert!(patient.health.marks().is_clear());
        probe(Err("no answer"));
    }
    assert!(patient.health.standing().out);
    let snapshot = patient.health.snapshot();
    assert_eq!(snapshot.marks[0].why, "3 probes (a connection) failed, the last: no answer");
    assert_eq!(snapshot.probe.unwrap().failure.unwrap(), "no answer");
    probe(Ok(()));
    assert!(patient.health.standing().out);
    probe(Ok(()));
    assert!(patient.health.marks().is_clear());
    probe(Err("x"));
    probe(Err("x"));
    probe(Err("x"));
    patient.health.adopt(&rules(&HealthSettings::default(), &BreakerSettings::default()));
    assert!(patient.health.marks().is_clear(), "without probes nobody is down");
}

#[tokio::test(start_paused = true)]
async fn other_rules_undo_what_is_turned_off() {
    let patient = Patient::new(with_breaker);
    patient.fails(Cause::Reset, 5);
    assert_eq!(patient.state(), ["open", "ejected"]);
    let health = HealthSettings { passive: false, ..HealthSettings::default() };
    patient.health.adopt(&rules(&health, &BreakerSettings::default()));
    patient.after(250).await;
    assert!(patient.health.marks().is_clear());
    patient.fails(Cause::Reset, 99);
    assert!(patient.health.marks().is_clear());
}
