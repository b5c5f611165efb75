//! Backends at their bounds, and who waits for them.

use futures_util::future::join_all;
use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_bound_is_kept_and_who_waits_is_served_in_turn() {
    let settings = BackendsSettings { queue_length: 2, ..BackendsSettings::default() };
    let group = bounded(&[("a", 1), ("b", 1)], settings);
    let (one, other) = (group.next(&mut Tried::default()), group.next(&mut Tried::default()));
    let (one, _other) = (one.unwrap(), other.unwrap());
    let (mut first, mut second) = (Tried::default(), Tried::default());
    let mut first = Box::pin(group.acquire(&mut first, None));
    let mut second = Box::pin(group.acquire(&mut second, None));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    assert_eq!(group.waiting(), 2);
    assert_eq!(group.first(), "Overloaded", "no place to wait");
    assert_eq!(group.series.queue.rejections.get(), 1);
    drop(one);
    assert!((&mut second).now_or_never().is_none(), "it was not its turn");
    let served = (&mut first).now_or_never().unwrap().unwrap();
    assert_eq!(name(&served), "a");
    assert_eq!(group.waiting(), 1);
    let begun = Instant::now();
    assert_eq!(second.await.unwrap_err(), NoBackend::Overloaded);
    assert_eq!(begun.elapsed(), BackendsSettings::default().queue_timeout);
    assert_eq!(group.series.queue.timeouts.get(), 1);
    assert_eq!(group.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_comes_later_does_not_overtake() {
    let group = bounded(&[("a", 1)], BackendsSettings::default());
    let one = group.next(&mut Tried::default()).unwrap();
    let mut tried = Tried::default();
    let mut first = Box::pin(group.acquire(&mut tried, None));
    assert!((&mut first).now_or_never().is_none());
    drop(one);
    // There is room now, but it is the first one's.
    let mut tried = Tried::default();
    let mut late = Box::pin(group.acquire(&mut tried, None));
    assert!((&mut late).now_or_never().is_none());
    let served = first.await.unwrap();
    assert!((&mut late).now_or_never().is_none());
    drop(served);
    assert_eq!(name(&late.await.unwrap()), "a");
}

#[tokio::test(start_paused = true)]
async fn a_backup_does_not_serve_what_a_full_primary_could() {
    let settings = BackendsSettings { queue_length: 0, ..BackendsSettings::default() };
    let plan = Plan { settings, ..Plan::new(Balance::LeastConn) };
    let mut all = backends(&[("a", 0, 1), ("b", 1, 1)]);
    all[0].max_connections = 1;
    let group = plan.build(&all, None);
    let _one = group.next(&mut Tried::default()).unwrap();
    assert_eq!(group.first(), "Overloaded");
    // One that the primary has refused may go on to the backup.
    let mut tried = Tried::default();
    tried.insert(0);
    assert_eq!(name(&group.next(&mut tried).unwrap()), "b");
}

#[tokio::test(start_paused = true)]
async fn a_popular_key_overflows_to_its_second_choice() {
    let mut plan = Plan::new(Balance::ConsistentHash);
    plan.settings.queue_length = 0;
    let mut all = backends(&[("a", 0, 1), ("b", 0, 1), ("c", 0, 1)]);
    for backend in &mut all {
        backend.max_connections = 2;
    }
    let group = plan.build(&all, None);
    let pick = || group.acquire(&mut Tried::default(), Some(7)).now_or_never().unwrap();
    let held: Vec<Active> = (0..6).map(|_| pick().unwrap()).collect();
    let names: Vec<String> = held.iter().map(name).collect();
    assert!(names[0] == names[1] && names[2] == names[3] && names[4] == names[5], "{names:?}");
    assert_eq!(pick().unwrap_err(), NoBackend::Overloaded);
}

/// Whoever is let in because something changed, and not because something ended.
#[tokio::test(start_paused = true)]
async fn a_weight_that_comes_back_wakes_who_waits() {
    let group = bounded(&[("a", 1), ("b", 1)], BackendsSettings::default());
    group.upstream("b").override_weight(Some(0));
    let _one = group.next(&mut Tried::default()).unwrap();
    let mut tried = Tried::default();
    let mut waiting = Box::pin(group.acquire(&mut tried, None));
    assert!((&mut waiting).now_or_never().is_none());
    group.upstream("b").override_weight(None);
    assert_eq!(name(&waiting.now_or_never().unwrap().unwrap()), "b");
}

/// The line is the region's, and not one table's.
#[tokio::test(start_paused = true)]
async fn who_waits_over_a_reload_is_let_in() {
    let mut plan = Plan::new(Balance::LeastConn);
    plan.settings.queue_length = 1;
    let mut all = backends(&[("a", 0, 1), ("b", 0, 1)]);
    for backend in &mut all {
        backend.max_connections = 1;
    }
    let before = plan.build(&all, None);
    let _one = before.next(&mut Tried::default()).unwrap();
    let other = before.next(&mut Tried::default()).unwrap();
    let mut tried = Tried::default();
    let mut waiting = Box::pin(before.acquire(&mut tried, None));
    assert!((&mut waiting).now_or_never().is_none());
    let after = plan.build(&all, Some(&before));
    assert_eq!((after.waiting(), after.first().as_str()), (1, "Overloaded"));
    drop(other);
    assert!(waiting.now_or_never().unwrap().is_ok());
}

/// Many at once, on one clock, each of which takes its time: never more than the bound, and nobody is left behind.
#[tokio::test(start_paused = true)]
async fn a_crowd_gets_through_a_narrow_door() {
    let settings = BackendsSettings {
        queue_length: 1_000,
        queue_timeout: Duration::from_secs(100),
        ..BackendsSettings::default()
    };
    let group = bounded(&[("a", 2), ("b", 3)], settings);
    let visits = join_all((0..500_u64).map(|visit| {
        let group = &group;
        async move {
            let mut tried = Tried::default();
            let active = group.acquire(&mut tried, None).await.unwrap();
            assert!(group.upstream("a").active() <= 2 && group.upstream("b").active() <= 3);
            tokio::time::sleep(Duration::from_millis(1 + visit * 7 % 13)).await;
            drop(active);
        }
    }));
    visits.await;
    assert_eq!(group.upstream("a").requests() + group.upstream("b").requests(), 500);
    assert_eq!((group.waiting(), group.upstream("a").active()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_has_nobody_left_to_go_to_does_not_wait_in_line() {
    let group = bounded(&[("a", 1), ("b", 1)], BackendsSettings::default());
    let _held = (group.next(&mut Tried::default()), group.next(&mut Tried::default()));
    let mut tried = Tried::default();
    let mut waiting = Box::pin(group.acquire(&mut tried, None));
    assert!((&mut waiting).now_or_never().is_none());
    let mut both: Tried = Tried::default();
    (0..2).for_each(|index| both.insert(index));
    assert_eq!(group.next(&mut both).unwrap_err(), NoBackend::Unavailable);
}

#[test]
fn what_was_tried_is_known_in_the_next_edition_too() {
    let plan = Plan::new(Balance::LeastConn);
    let before = plan.build(&backends(&[("a", 0, 1), ("b", 0, 1), ("c", 0, 1)]), None);
    let after = plan.build(&backends(&[("d", 0, 1), ("c", 0, 1), ("a", 0, 1)]), Some(&before));
    let mut tried = Tried::default();
    (0..2).for_each(|index| tried.insert(index));
    let tried = after.tried_before(&before, tried);
    assert_eq!([0, 1, 2].map(|index| tried.contains(index)), [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn sockets_abroad_are_not_called_home_before_there_is_room() {
    let settings = BackendsSettings { hold: Duration::ZERO, ..BackendsSettings::default() };
    let group = bounded(&[("a", 1)], settings);
    let policy = failover::Policy::of(&crate::settings::RegionSettings {
        failover: "any".parse().unwrap(),
        ..crate::settings::RegionSettings::default()
    });
    let at_home = group.next(&mut Tried::default()).unwrap();
    let stray = group.stray_abroad();
    let mut turn = std::pin::pin!(stray.turn());
    for _ in 0..20 {
        group.call_home(&policy, 10);
        assert!(turn.as_mut().now_or_never().is_none(), "it would only come back abroad");
        advance(Duration::from_millis(250)).await;
    }
    drop(at_home);
    group.call_home(&policy, 10);
    turn.await;
}
