//! Balancing, health, drains and reloads together, under seeded random schedules and a clock that only the test moves.
//!
//! Each step does one thing that may happen to a region: an exchange begins or ends, a probe comes back, an operator drains
//! or weighs, the settings change, time passes. After each choice, what was chosen is held against what the marks said
//! before it, reckoned here anew and more simply. A failure names its seed. What is right, `oracle` says.

mod oracle;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::FutureExt as _;
use http::StatusCode;

use super::{Outcome, Rules, Trial};
use crate::observability::Registry;
use crate::proxy::backends::{Active, Clock, Ground, Group, Tried};
use crate::proxy::error::Cause;
use crate::proxy::metrics::{Families, RegionSeries};
use crate::settings::{
    BackendSettings, BackendsSettings, Balance, BreakerSettings, HashBy, HealthSettings, ProbeKind,
    RegionHealthSettings, RegionName, WhenExceeded,
};

const SEEDS: u64 = 60;
const STEPS: usize = 400;

/// One region, and all that goes on in it.
struct World {
    rng: Rng,
    families: Families,
    series: Arc<RegionSeries>,
    clock: Clock,
    settings: BackendsSettings,
    balance: Balance,
    health: HealthSettings,
    breaker: BreakerSettings,
    rules: Arc<Rules>,
    backends: Vec<BackendSettings>,
    group: Group,
    going_on: Vec<Active>,
}

fn backend(rng: &mut Rng, number: u32) -> BackendSettings {
    BackendSettings {
        tier: rng.u8(0..3),
        weight: rng.u16(0..4),
        max_connections: if rng.bool() { 0 } else { rng.u32(1..4) },
        ..BackendSettings::primary(format!("http://b{number}"))
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let families = Families::register(&mut Registry::default());
        let series = Arc::new(families.of(&RegionName::literal("1")));
        let secs = |n: u64| Duration::from_secs(n);
        let settings = BackendsSettings {
            // Whoever would have to wait is told so at once.
            queue_length: 0,
            hold: if rng.bool() { Duration::ZERO } else { secs(rng.u64(1..10)) },
            slow_start: if rng.bool() { Duration::ZERO } else { secs(rng.u64(1..10)) },
            ..BackendsSettings::default()
        };
        let balances =
            [Balance::LeastConn, Balance::P2cEwma, Balance::RoundRobin, Balance::ConsistentHash];
        let balance = balances[rng.usize(..4)];
        let health = HealthSettings {
            active: if rng.bool() { ProbeKind::Tcp } else { ProbeKind::Off },
            passive: rng.u8(..4) > 0,
            consecutive: rng.u32(1..4),
            eject: secs(rng.u64(1..10)),
            max_ejected_percent: [0, 30, 50, 100][rng.usize(..4)],
            when_exceeded: if rng.bool() { WhenExceeded::Panic } else { WhenExceeded::Fail },
            ..HealthSettings::default()
        };
        let breaker = BreakerSettings {
            enabled: rng.bool(),
            consecutive: rng.u32(1..5),
            trials: NonZeroU32::new(rng.u32(1..4)).unwrap(),
            ..BreakerSettings::default()
        };
        let backends: Vec<_> = (0..rng.u32(2..8)).map(|n| backend(&mut rng, n)).collect();
        let (clock, rules) = (Clock::start(), rules(&health, &breaker));
        let build = Build { families: &families, series: &series, clock, rules: &rules };
        let group = build.group(&backends, None, &settings, balance);
        let going_on = Vec::new();
        Self {
            rng,
            families,
            series,
            clock,
            settings,
            balance,
            health,
            breaker,
            rules,
            backends,
            group,
            going_on,
        }
    }

    /// One request, which may be refused by some backends before it has one.
    fn request(&mut self) {
        let mut tried = Tried::default();
        let key = Some(self.rng.u64(..));
        loop {
            let seen = self.seen(tried);
            self.share_holds(&seen);
            let acquired = self.group.acquire(&mut tried, key).now_or_never();
            let Ok(active) = acquired.expect("nobody waits in this line") else {
                let panics = self.health.when_exceeded == WhenExceeded::Panic;
                for one in seen.iter().filter(|one| one.is_well() && !one.tried && !one.full) {
                    let refused = !panics && self.exceeds(&seen, one.tier);
                    // A full primary is waited for; no backup takes its place.
                    let held_up = seen.iter().any(|other| {
                        other.full && !other.tried && other.tier != one.tier && !other.out
                    });
                    assert!(
                        refused || held_up,
                        "nobody was found, though there is {one:?} of {seen:?}"
                    );
                }
                return;
            };
            let place = self.place(&active);
            self.chosen(&seen, place);
            if self.rng.u8(..8) == 0 {
                active.failed(Cause::Connect);
                continue;
            }
            self.going_on.push(active);
            return;
        }
    }

    fn place(&self, active: &Active) -> usize {
        let mut members = self.group.members.iter();
        members.position(|one| Arc::ptr_eq(&one.upstream, &active.upstream)).unwrap()
    }

    /// Some exchange ends in some way.
    fn end(&mut self) {
        if self.going_on.is_empty() {
            return;
        }
        let active = self.going_on.swap_remove(self.rng.usize(..self.going_on.len()));
        let took = Duration::from_millis(self.rng.u64(..2_000));
        match self.rng.u8(..8) {
            0 => active.failed(Cause::Reset),
            1 => active.failed(Cause::HeadTimeout),
            2 => {
                active.answered(StatusCode::OK, took);
                active.failed(Cause::Aborted);
            }
            // The client has left.
            3 => {}
            _ => {
                active.answered(StatusCode::OK, took);
                active.upstream.health.whole();
            }
        }
    }

    async fn pass(&mut self, time: Duration) {
        tokio::time::advance(time).await;
        self.group.members.iter().for_each(|member| member.upstream.health.tick());
    }

    /// Another edition of the group: one backend joins, or leaves, or has other settings.
    fn reload(&mut self, step: usize) {
        let place = self.rng.usize(..self.backends.len());
        match self.rng.u8(..3) {
            0 if self.backends.len() < 10 => {
                let number = 100 + u32::try_from(step).unwrap();
                self.backends.push(backend(&mut self.rng, number));
            }
            // A group of one has rules of its own: it is used in doubt.
            1 if self.backends.len() > 2 => drop(self.backends.remove(place)),
            _ => {
                let url = self.backends[place].url.clone();
                self.backends[place] = BackendSettings { url, ..backend(&mut self.rng, 0) };
            }
        }
        self.health.passive = self.rng.u8(..4) > 0;
        self.rules = rules(&self.health, &self.breaker);
        let Self { families, series, clock, rules, .. } = self;
        let build = Build { families, series, clock: *clock, rules };
        let group = build.group(&self.backends, Some(&self.group), &self.settings, self.balance);
        self.group = group;
        // Those at backends that are gone end elsewhere.
        let members = &self.group.members;
        let is_there = |active: &Active| {
            members.iter().any(|one| Arc::ptr_eq(&one.upstream, &active.upstream))
        };
        self.going_on.retain(is_there);
    }

    async fn step(&mut self, step: usize) {
        let place = self.rng.usize(..self.group.members.len());
        let upstream = Arc::clone(&self.group.members[place].upstream);
        match self.rng.u8(..40) {
            0..=17 => self.request(),
            18..=30 => self.end(),
            31..=34 => {
                let time = Duration::from_millis(self.rng.u64(..3_000));
                self.pass(time).await;
            }
            35 => upstream.drain(self.rng.bool()),
            36 => {
                let weight = self.rng.u32(..4);
                upstream.override_weight(self.rng.bool().then_some(weight));
            }
            37 | 38 => {
                let result = if self.rng.bool() { Ok(()) } else { Err("ill".to_owned()) };
                upstream.health.probed(result, Duration::ZERO);
            }
            _ => self.reload(step),
        }
        self.counts_fit();
    }

    fn counts_fit(&self) {
        let mut counts = BTreeMap::<u64, usize>::new();
        for active in &self.going_on {
            *counts.entry(active.upstream.id).or_default() += 1;
        }
        for member in &self.group.members {
            let count = counts.get(&member.upstream.id).copied().unwrap_or_default();
            assert_eq!(member.upstream.active(), count);
        }
        assert_eq!(self.series.in_flight.get(), i64::try_from(self.going_on.len()).unwrap());
    }

    /// When all is over, nothing is counted, no permit is missing, and time brings everybody back.
    async fn over(&mut self) {
        self.going_on.clear();
        self.counts_fit();
        for _ in 0..100 {
            self.pass(Duration::from_secs(10)).await;
        }
        for member in &self.group.members {
            let (health, most) = (&member.upstream.health, self.breaker.trials.get());
            let standing = health.standing();
            assert!(!standing.ejected && !standing.unreachable, "{:?}", health.snapshot());
            let mut permits = 0;
            while permits <= most && health.admit() == Some(Trial::Yes) {
                permits += 1;
            }
            assert!(permits == 0 || permits == most, "{permits} of {most} trials are left");
            (0..permits).for_each(|_| health.abandoned(Trial::Yes));
            // Good ends close what is half-open.
            while health.admit() == Some(Trial::Yes) {
                let (status, took) = (StatusCode::OK, Duration::ZERO);
                health.outcome(Outcome::Answered { status, took }, Trial::Yes);
            }
            assert!(!health.standing().out || health.snapshot().state == "down");
        }
    }
}

fn rules(health: &HealthSettings, breaker: &BreakerSettings) -> Arc<Rules> {
    let region = RegionHealthSettings::default();
    Arc::new(Rules::new(health, &region, breaker, Duration::from_secs(2)))
}

/// What editions of the group have in common.
struct Build<'a> {
    families: &'a Families,
    series: &'a Arc<RegionSeries>,
    clock: Clock,
    rules: &'a Arc<Rules>,
}

impl Build<'_> {
    fn group(
        &self,
        backends: &[BackendSettings],
        previous: Option<&Group>,
        settings: &BackendsSettings,
        balance: Balance,
    ) -> Group {
        let ground = Ground {
            region: "1",
            series: self.series,
            clock: self.clock,
            families: &self.families.health,
            rules: self.rules,
            settings,
            balance,
            hash_by: &HashBy::Client,
            tls: None,
        };
        let group = Group::new(backends, previous, &ground).unwrap();
        group.take_charge();
        group
    }
}

/// Says which seed it was when a test fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}", self.0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_a_choice_is_right_and_counts_come_back() {
    for seed in 0..SEEDS {
        let _told = Told(seed);
        // The jitter of breakers is drawn from the thread's own.
        fastrand::seed(seed);
        let mut world = World::new(seed);
        for step in 0..STEPS {
            world.step(step).await;
        }
        world.over().await;
    }
}
