//! Groups without a network: who gets which request, in tiers, by weight, at bounds, and over time, which stands still
//! but where a test moves it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use proptest::prelude::*;
use tokio::time::advance;

mod bounds;
mod standing;

use super::*;
use crate::observability::Registry;
use crate::proxy::error::Cause;
use crate::proxy::health::{Outcome, Trial};
use crate::proxy::metrics::Families;
use crate::settings::RegionName;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// What a group is built of; the same for its next edition.
struct Plan {
    settings: BackendsSettings,
    balance: Balance,
    hash_by: HashBy,
    families: Families,
    series: Arc<RegionSeries>,
    clock: Clock,
    rules: Arc<Rules>,
}

impl Plan {
    fn new(balance: Balance) -> Self {
        let families = Families::register(&mut Registry::default());
        Self {
            settings: BackendsSettings { hold: Duration::ZERO, ..BackendsSettings::default() },
            balance,
            hash_by: HashBy::Client,
            series: Arc::new(families.of(&RegionName::literal("1"))),
            families,
            clock: Clock::start(),
            rules: Arc::new(Rules::of_hub(Duration::from_secs(3))),
        }
    }

    fn build(&self, backends: &[BackendSettings], previous: Option<&Group>) -> Group {
        let ground = Ground {
            region: "1",
            series: &self.series,
            clock: self.clock,
            families: &self.families.health,
            rules: &self.rules,
            settings: &self.settings,
            balance: self.balance,
            hash_by: &self.hash_by,
            tls: None,
        };
        Group::new(backends, previous, &ground).unwrap()
    }

    /// Builds one and puts it in place.
    fn place(&self, backends: &[BackendSettings]) -> Group {
        let group = self.build(backends, None);
        group.take_charge();
        group
    }
}

/// Backends `http://NAME:80`, in this tier and of this weight.
fn backends(list: &[(&str, u8, u16)]) -> Vec<BackendSettings> {
    let one = |&(name, tier, weight): &(&str, u8, u16)| BackendSettings {
        tier,
        weight,
        ..BackendSettings::primary(format!("http://{name}"))
    };
    list.iter().map(one).collect()
}

fn least_conn(list: &[(&str, u8, u16)]) -> Group {
    Plan::new(Balance::LeastConn).build(&backends(list), None)
}

fn bounded(list: &[(&str, u32)], settings: BackendsSettings) -> Group {
    let one = |&(name, max_connections): &(&str, u32)| BackendSettings {
        max_connections,
        ..BackendSettings::primary(format!("http://{name}"))
    };
    let all: Vec<_> = list.iter().map(one).collect();
    Plan { settings, ..Plan::new(Balance::LeastConn) }.build(&all, None)
}

fn name(active: &Active) -> String {
    active.upstream.label.trim_end_matches(":80").to_owned()
}

impl Group {
    fn upstream(&self, name: &str) -> &Arc<Upstream> {
        let label = format!("{name}:80");
        &self.members.iter().find(|one| *one.upstream.label == *label).unwrap().upstream
    }

    /// A backend could not be reached.
    #[expect(clippy::unused_self, reason = "reads as what happens to a group")]
    fn mark(&self, upstream: &Upstream) {
        upstream.outcome(Outcome::Failed(Cause::Connect), Trial::No);
    }

    /// Who would get a request now; nothing may have to be waited for.
    fn next(&self, tried: &mut Tried) -> Result<Active, NoBackend> {
        self.acquire(tried, None).now_or_never().expect("nothing to wait for")
    }

    fn first(&self) -> String {
        self.next(&mut Tried::default()).map_or_else(|none| format!("{none:?}"), |one| name(&one))
    }

    /// Who gets how many of `count` requests, each of which ends at once.
    fn split(&self, count: u32) -> BTreeMap<String, u32> {
        let mut split = BTreeMap::new();
        for _ in 0..count {
            *split.entry(self.first()).or_default() += 1;
        }
        split
    }

    fn splits(&self, expected: &[(&str, u32)]) {
        let total = expected.iter().map(|(_, count)| count).sum();
        let expected: BTreeMap<_, _> =
            expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        assert_eq!(self.split(total), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn one_after_the_other_goes_by_weight() {
    least_conn(&[("a", 0, 1), ("b", 0, 1), ("c", 0, 1)]).splits(&[("a", 50), ("b", 50), ("c", 50)]);
    least_conn(&[("a", 0, 3), ("b", 0, 1)]).splits(&[("a", 75), ("b", 25)]);
    let robin = Plan::new(Balance::RoundRobin).build(&backends(&[("a", 0, 5), ("b", 0, 2)]), None);
    robin.splits(&[("a", 50), ("b", 20)]);
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_is_spread_by_weight() {
    let group = least_conn(&[("a", 0, 4), ("b", 0, 1), ("c", 0, 0)]);
    let all: Vec<_> = (0..50).map(|_| group.next(&mut Tried::default()).unwrap()).collect();
    assert_eq!(group.upstream("a").active(), 40);
    assert_eq!(group.upstream("b").active(), 10);
    drop(all);
    assert_eq!(group.upstream("a").active(), 0);
    assert_eq!(group.upstream("a").requests(), 40);
    assert_eq!(group.upstream("c").requests(), 0, "weight 0 takes nothing");
}

#[tokio::test(start_paused = true)]
async fn an_operator_weighs_and_drains_at_run_time() {
    let group = least_conn(&[("a", 0, 1), ("b", 0, 1), ("spare", 1, 1)]);
    let kept = group.next(&mut Tried::default()).unwrap();
    drop(kept);
    group.upstream("a").override_weight(Some(9));
    let split = group.split(1_000);
    assert!(split["a"].abs_diff(900) <= 1, "{split:?}");
    group.upstream("a").override_weight(Some(0));
    group.splits(&[("b", 10)]);
    group.upstream("b").drain(true);
    group.splits(&[("spare", 10)]);
    group.upstream("spare").drain(true);
    assert_eq!(group.first(), "Unavailable");
    group.upstream("a").override_weight(None);
    group.splits(&[("a", 10)]);
}

#[tokio::test(start_paused = true)]
async fn the_only_backend_is_used_in_doubt_but_not_when_it_drains() {
    let group = least_conn(&[("a", 0, 1)]);
    group.mark(group.upstream("a"));
    assert_eq!(group.first(), "a");
    group.upstream("a").drain(true);
    assert_eq!(group.first(), "Unavailable");
    group.upstream("a").drain(false);
    let mut tried = Tried::default();
    group.next(&mut tried).unwrap();
    assert_eq!(group.next(&mut tried).unwrap_err(), NoBackend::Unavailable);
}

/// Primaries die one by one and come back, with the exact split at every step.
#[tokio::test(start_paused = true)]
async fn tiers_take_over_and_give_back() {
    let mut plan = Plan::new(Balance::LeastConn);
    plan.settings.hold = Duration::from_secs(10);
    let list = [("a", 0, 2), ("b", 0, 1), ("c", 1, 1), ("d", 2, 1)];
    let group = plan.build(&backends(&list), None);
    group.splits(&[("a", 20), ("b", 10)]);
    group.mark(group.upstream("a"));
    group.splits(&[("b", 10)]);
    group.mark(group.upstream("b"));
    group.splits(&[("c", 10)]);
    assert_eq!(group.tier(), 1);
    group.mark(group.upstream("c"));
    group.splits(&[("d", 10)]);
    group.mark(group.upstream("d"));
    assert_eq!(group.first(), "a", "all in doubt: the best is tried all the same");

    // The marks are out of date after three seconds; then the hold time begins.
    advance(Duration::from_secs(3)).await;
    group.splits(&[("d", 10)]);
    advance(Duration::from_secs(9)).await;
    group.splits(&[("d", 10)]);
    advance(Duration::from_secs(1)).await;
    group.splits(&[("a", 20), ("b", 10)]);
    assert_eq!(group.tier(), 0);
}

/// A primary that is lost once a second, and found again, is never gone back to; nor is its backup left.
#[tokio::test(start_paused = true)]
async fn a_flapping_primary_stays_out() {
    let mut plan = Plan::new(Balance::LeastConn);
    plan.settings.hold = Duration::from_secs(5);
    let group = plan.build(&backends(&[("a", 0, 1), ("b", 1, 1)]), None);
    group.splits(&[("a", 10)]);
    group.mark(group.upstream("a"));
    for second in 0..60 {
        assert_eq!(group.first(), "b", "in second {second}");
        advance(Duration::from_millis(500)).await;
        group.upstream("a").health.reached();
        assert_eq!(group.first(), "b", "in second {second}");
        advance(Duration::from_millis(500)).await;
        group.mark(group.upstream("a"));
    }
    group.upstream("a").health.reached();
    assert_eq!(group.first(), "b");
    advance(Duration::from_secs(5)).await;
    assert_eq!(group.first(), "a");
    assert_eq!(group.series.queue.tier_changes.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_came_back_rises_to_its_weight() {
    let mut plan = Plan::new(Balance::RoundRobin);
    plan.settings.slow_start = Duration::from_secs(10);
    let group = plan.build(&backends(&[("a", 0, 1), ("b", 0, 1)]), None);
    group.splits(&[("a", 50), ("b", 50)]);
    group.mark(group.upstream("b"));
    group.splits(&[("a", 10)]);
    advance(Duration::from_secs(3)).await;
    let share = |split: &BTreeMap<String, u32>| split.get("b").copied().unwrap_or_default();
    let split = group.split(1_100);
    assert!(share(&split).abs_diff(100) <= 2, "a tenth of the weight: {split:?}");
    advance(Duration::from_secs(5)).await;
    let split = group.split(1_550);
    assert!(share(&split).abs_diff(550) <= 2, "half-way: {split:?}");
    advance(Duration::from_secs(5)).await;
    group.split(10);
    group.splits(&[("a", 50), ("b", 50)]);
}

#[tokio::test(start_paused = true)]
async fn a_primary_tier_takes_over_by_and_by_where_there_is_a_slow_start() {
    let mut plan = Plan::new(Balance::LeastConn);
    plan.settings.slow_start = Duration::from_secs(10);
    let group = plan.build(&backends(&[("a", 0, 1), ("b", 1, 1)]), None);
    group.mark(group.upstream("a"));
    group.splits(&[("b", 100)]);
    advance(Duration::from_secs(3)).await;
    group.splits(&[("a", 100), ("b", 900)]);
    advance(Duration::from_secs(5)).await;
    group.splits(&[("a", 550), ("b", 450)]);
    advance(Duration::from_secs(5)).await;
    group.splits(&[("a", 100)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_the_same_is_taken_over_and_what_joins_starts_slowly() {
    let mut plan = Plan::new(Balance::RoundRobin);
    plan.settings.slow_start = Duration::from_secs(10);
    let before = plan.build(&backends(&[("a", 0, 1), ("b", 0, 1)]), None);
    let going_on = before.next(&mut Tried::default()).unwrap();
    let after = plan.build(&backends(&[("b", 0, 1), ("a", 0, 1), ("c", 0, 1)]), Some(&before));
    assert!(Arc::ptr_eq(before.upstream("a"), after.upstream("a")));
    assert_eq!(after.upstream(&name(&going_on)).active(), 1);
    let split = after.split(2_100);
    assert!(split["c"].abs_diff(100) <= 2, "{split:?}");
    advance(Duration::from_secs(10)).await;
    after.split(3);
    after.splits(&[("a", 50), ("b", 50), ("c", 50)]);
}

#[tokio::test(start_paused = true)]
async fn requests_that_belong_together_go_to_the_same_backend() {
    let mut plan = Plan::new(Balance::ConsistentHash);
    plan.hash_by = HashBy::Header("x-user".to_owned());
    let list = [("a", 0, 1), ("b", 0, 1), ("c", 0, 1), ("d", 1, 1)];
    let group = plan.build(&backends(&list), None);
    let of = |user: usize| {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", user.to_string().parse().unwrap());
        let key = group.key(&headers, CLIENT);
        name(&group.acquire(&mut Tried::default(), key).now_or_never().unwrap().unwrap())
    };
    let before: Vec<String> = (0..600).map(of).collect();
    assert_eq!(before, (0..600).map(of).collect::<Vec<_>>());
    for one in ["a", "b", "c"] {
        let share = before.iter().filter(|name| *name == one).count();
        assert!((150..250).contains(&share), "{one} has {share} of 600");
    }
    group.mark(group.upstream("b"));
    for (user, before) in before.iter().enumerate() {
        let now = of(user);
        assert!(if before == "b" { now == "a" || now == "c" } else { now == *before });
    }
    // It comes back, and so do they.
    group.upstream("b").health.reached();
    assert_eq!(before, (0..600).map(of).collect::<Vec<_>>());
}

/// A table that is built and then not put in place leaves everything as it was.
#[tokio::test(start_paused = true)]
async fn what_is_only_built_changes_nothing() {
    let mut plan = Plan::new(Balance::P2cEwma);
    let all = backends(&[("a", 0, 1), ("b", 0, 1)]);
    let group = plan.place(&all);
    plan.balance = Balance::LeastConn;
    let next = plan.build(&all, Some(&group));
    let answers = |name: &str| {
        let active = Active::begin(group.upstream(name), 0).unwrap();
        active.answered(http::StatusCode::OK, Duration::from_secs(1));
        group.upstream(name).latency.cost(0, 0)
    };
    assert!(answers("a") > 900_000.0, "latencies are still asked for");
    next.take_charge();
    assert!(answers("b") < 1.0, "and now they are not");
}

#[tokio::test(start_paused = true)]
async fn who_answers_faster_gets_more_and_who_fails_gets_little() {
    let plan = Plan::new(Balance::P2cEwma);
    let group = plan.place(&backends(&[("fast", 0, 1), ("slow", 0, 1), ("bad", 0, 1)]));
    let mut split = BTreeMap::<String, u32>::new();
    for _ in 0..3_000 {
        let active = group.next(&mut Tried::default()).unwrap();
        let name = name(&active);
        let (status, took) = match &*name {
            "fast" => (http::StatusCode::OK, 5),
            "slow" => (http::StatusCode::OK, 50),
            _ => (http::StatusCode::BAD_GATEWAY, 1),
        };
        let took = Duration::from_millis(took);
        active.answered(status, took);
        *split.entry(name).or_default() += 1;
        advance(Duration::from_millis(1)).await;
    }
    assert!(split["fast"] > 1_800, "it wins every draw that it is in: {split:?}");
    assert!(split["bad"] < 30, "its fast errors draw nothing: {split:?}");
}

proptest! {
    /// Whatever is marked, drained and tried: a choice is out of the best tier that has something to choose.
    #[test]
    fn the_order_of_tiers_is_never_violated(
        members in prop::collection::vec((0_u8..3, 0_u16..3, any::<bool>(), any::<bool>()), 2..8),
        tried in any::<u8>(),
        balance in prop_oneof![
            Just(Balance::LeastConn), Just(Balance::P2cEwma),
            Just(Balance::RoundRobin), Just(Balance::ConsistentHash),
        ],
    ) {
        let list = members.iter().enumerate().map(|(index, (tier, weight, ..))| BackendSettings {
            tier: *tier,
            weight: *weight,
            ..BackendSettings::primary(format!("http://b{index}"))
        });
        let group = Plan::new(balance).place(&list.collect::<Vec<_>>());
        for (member, (_, _, marked, draining)) in group.members.iter().zip(&members) {
            if *marked {
                group.mark(&member.upstream);
            }
            member.upstream.drain(*draining);
        }
        let untried = |index: usize| tried >> index & 1 == 0;
        let rank = |index: usize| {
            let (tier, weight, marked, draining) = members[index];
            (weight > 0 && !draining && untried(index)).then_some((marked, tier))
        };
        let best = (0..members.len()).filter_map(rank).min();
        let mut already = Tried::default();
        (0..members.len()).filter(|index| !untried(*index)).for_each(|index| already.insert(index));
        let picked = group.acquire(&mut already, Some(9)).now_or_never().unwrap();
        match picked {
            Err(_) => prop_assert_eq!(best, None),
            Ok(active) => {
                let index = group.members.iter().position(|m| Arc::ptr_eq(&m.upstream, &active.upstream));
                prop_assert_eq!(rank(index.unwrap()), best);
                prop_assert!(already.contains(index.unwrap()));
            }
        }
    }
}
