//! What a region says that it can take, for those who hand its traffic on.

use super::*;
use crate::settings::{BreakerSettings, HealthSettings, RegionHealthSettings};

/// In thousandths of what the primaries are.
fn share(group: &Group) -> u32 {
    let standing = group.standing();
    standing.usable * 1_000 / standing.whole
}

fn eject(group: &Group, name: &str) {
    for _ in 0..5 {
        group.upstream(name).outcome(Outcome::Failed(Cause::Reset), Trial::No);
    }
    assert!(group.upstream(name).health.standing().ejected);
}

fn judging(plan: Plan) -> Plan {
    let (health, region) = (HealthSettings::default(), RegionHealthSettings::default());
    let limit = Duration::from_secs(3);
    let rules = Rules::new(&health, &region, &BreakerSettings::default(), limit);
    Plan { rules: Arc::new(rules), ..plan }
}

#[tokio::test(start_paused = true)]
async fn weights_count_and_whoever_takes_nothing_does_not() {
    let plan = judging(Plan::new(Balance::LeastConn));
    let group = plan.place(&backends(&[("a", 0, 5), ("b", 0, 3), ("c", 0, 2), ("d", 1, 4)]));
    assert_eq!(share(&group), 1_000);
    eject(&group, "c");
    assert_eq!(share(&group), 800);
    group.upstream("b").drain(true);
    assert_eq!(share(&group), 500);
    group.upstream("b").drain(false);
    group.mark(group.upstream("a"));
    assert_eq!(share(&group), 300);
    // One that an operator gives no weight is no part of the region; another weight counts as it is.
    group.upstream("a").override_weight(Some(0));
    assert_eq!(share(&group), 600);
    group.upstream("b").override_weight(Some(18));
    assert_eq!(share(&group), 900);
    // Of backups what they are counts, against all of the primaries.
    group.upstream("a").override_weight(None);
    group.upstream("b").drain(true);
    assert_eq!(share(&group), 160);
    group.upstream("d").drain(true);
    assert_eq!(share(&group), 0);
}

#[tokio::test(start_paused = true)]
async fn who_starts_slowly_counts_as_far_as_it_has_come() {
    let mut plan = Plan::new(Balance::LeastConn);
    plan.settings.slow_start = Duration::from_secs(10);
    let group = plan.build(&backends(&[("a", 0, 1), ("b", 0, 1)]), None);
    group.mark(group.upstream("b"));
    assert_eq!(share(&group), 500);
    // Nobody has chosen here meanwhile.
    advance(Duration::from_secs(3)).await;
    assert_eq!(share(&group), 550, "a tenth of its half");
    advance(Duration::from_secs(5)).await;
    assert_eq!(share(&group), 775);
    advance(Duration::from_secs(5)).await;
    assert_eq!(share(&group), 1_000);
}

#[tokio::test(start_paused = true)]
async fn the_tier_that_serves_counts_while_a_better_one_proves_itself() {
    let mut plan = Plan::new(Balance::LeastConn);
    plan.settings.hold = Duration::from_secs(10);
    let list = [("a", 0, 1), ("b", 0, 1), ("c", 1, 1), ("d", 1, 1)];
    let group = plan.build(&backends(&list), None);
    group.mark(group.upstream("a"));
    group.mark(group.upstream("b"));
    group.splits(&[("c", 5), ("d", 5)]);
    group.upstream("a").health.reached();
    group.splits(&[("c", 5), ("d", 5)]);
    assert_eq!(share(&group), 1_000, "both backups serve");
    advance(Duration::from_secs(10)).await;
    group.mark(group.upstream("b"));
    group.splits(&[("a", 10)]);
    assert_eq!(share(&group), 500, "one of two primaries does");
}
