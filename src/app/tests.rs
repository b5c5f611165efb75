//! What only the inside can break.

use std::net::TcpListener;
use std::os::fd::OwnedFd;

use tokio::sync::mpsc;

use super::*;
use crate::settings::{HubPlace, RegionSettings};

/// A gateway of one worker with the proxy and one hub, every port chosen by the system.
fn build() -> App {
    let mut settings = Settings { workers: 1, ..Settings::default() };
    (settings.proxy.port, settings.admin.port, settings.api.port) = (0, 0, Some(0));
    let bind = std::net::IpAddr::from([127, 0, 0, 1]);
    (settings.proxy.bind, settings.demo.enabled) = (bind, false);
    let hub = Some(HubPlace { bind, port: Some(0), url: None });
    let region = RegionSettings { hub, ..RegionSettings::default() };
    settings.regions = [(RegionName::literal("1"), region)].into();
    App::build(&settings, &Parts::all(&settings)).unwrap()
}

#[tokio::test]
async fn a_door_that_nobody_opens_ends_the_process() {
    let mut app = build();
    // Not a socket, so that the runtime refuses it.
    let file = TcpListener::from(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    file.set_nonblocking(true).unwrap();
    app.workers[0].doors[1].0 = file;
    let (_never, stops) = mpsc::channel(1);
    let ended = app.run(StopRequests::Channel(stops));
    let ended = tokio::time::timeout(Duration::from_mins(1), ended).await;
    let error = ended.expect("it goes on with a deaf listener").unwrap_err();
    assert!(matches!(&error, AppError::Task { task, .. } if task == "worker 0"), "{error}");
}
