//! WebSockets that are served elsewhere, and their way home.

use tokio_util::sync::CancellationToken;

use super::tunnels::{no_tunnels, parts, tunnel};
use super::*;
use crate::observability::AccessLog;
use crate::settings::AccessFormat;

/// A gateway that has time pass, and lets so many go home a second.
async fn gateway(
    regions: &mut [(&'static str, RegionSettings)],
    rate: u32,
) -> (Gateway, JoinSet<()>) {
    for (_, region) in &mut *regions {
        region.rebalance_rate = rate;
    }
    let hold = |bounds: &mut Bounds| bounds.backends.hold = Duration::from_millis(10);
    let gateway = Gateway::among(regions, hold).await;
    let (shared, mut watch) = (Arc::clone(&gateway.shared), JoinSet::new());
    watch.spawn(async move { shared.watch_health(CancellationToken::new()).await });
    (gateway, watch)
}

#[tokio::test]
async fn sockets_of_a_region_that_is_back_go_home_one_after_the_other() {
    let (home, abroad) = (Backend::start().await, Backend::start().await);
    let mut regions =
        [("1", region(&[&home.url()], "ordered:2")), ("2", region(&[&abroad.url()], "strict"))];
    let (gateway, _watch) = gateway(&mut regions, 10).await;
    let kept = AccessLog::kept(AccessFormat::Text);
    gateway.shared.record_in(kept.clone());
    let at_home = gateway.shared.operate("1", &home.address().to_string()).unwrap();
    at_home.drain(true);
    let mut first = tunnel(&gateway, &abroad).await;
    let mut second = tunnel(&gateway, &abroad).await;
    at_home.drain(false);
    // Whoever is told first: one second lies between them.
    tokio::select! {
        () = parts(&mut first.0, &mut first.1) => parts(&mut second.0, &mut second.1).await,
        () = parts(&mut second.0, &mut second.1) => parts(&mut first.0, &mut first.1).await,
    }
    no_tunnels(&gateway).await;
    let lines = kept.taken();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    for line in lines.lines() {
        assert!(line.contains(" region=1 served=2 why=ordered "), "{line}");
        assert!(line.contains(" close=1012 ended_by=rebalance end=rebalanced "), "{line}");
    }
    let _home_again = tunnel(&gateway, &home).await;
}

#[tokio::test]
async fn sockets_of_a_backup_go_back_to_the_primary() {
    let (primary, backup) = (Backend::start().await, Backend::start().await);
    let mut regions = [("1", region(&[&primary.url(), &backup.backup()], "strict"))];
    let (gateway, _watch) = gateway(&mut regions, 10).await;
    let operated = gateway.shared.operate("1", &primary.address().to_string()).unwrap();
    operated.drain(true);
    let (mut client, mut peer) = tunnel(&gateway, &backup).await;
    operated.drain(false);
    parts(&mut client, &mut peer).await;
    no_tunnels(&gateway).await;
    let _home_again = tunnel(&gateway, &primary).await;
}
