//! Requests that are under way while another table takes the place of theirs.

use super::secure::Authority;
use super::*;

/// Puts another region `1` in place.
fn replace(gateway: &Gateway, bounds: Bounds, region: RegionSettings) {
    let name = RegionName::literal("1");
    let regions = BTreeMap::from([(name.clone(), region)]);
    gateway.shared.replace(bounds, &regions, Some(&name)).unwrap();
}

#[tokio::test]
async fn a_request_whose_backends_were_all_replaced_goes_to_the_new_ones() {
    let (old, new) = (Backend::start().await, Backend::start().await);
    let gateway = Gateway::start(&[&old.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    // It has its region already, and is waited for, since its body is small enough to be held.
    client.say("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo").await;
    let routed = async {
        while gateway.shared.table().regions.iter().all(|region| Arc::strong_count(region) < 4) {
            tokio::task::yield_now().await;
        }
    };
    within("the request to be routed", routed).await;
    replace(&gateway, Bounds::default(), region(&[&new.url()], "strict"));
    client.say("dy").await;
    let mut peer = within("the new backend", async {
        tokio::select! {
            peer = new.accept() => peer,
            head = client.head() => panic!("answered without a backend: {head}"),
        }
    })
    .await;
    peer.answers("new").await;
    peer.hears("body").await;
    client.gets(200, "new").await;
}

#[tokio::test]
async fn a_request_in_line_goes_to_the_new_backends() {
    let (old, new) = (Backend::start().await, Backend::start().await);
    let mut settings = region(&[&old.url()], "strict");
    settings.backends[0].max_connections = 1;
    let gateway = Gateway::of(settings, Bounds::default()).await;
    let (mut first, mut second) = (gateway.connect().await, gateway.connect().await);
    first.say("GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut busy = old.accept().await;
    busy.head().await;
    second.say("GET /second HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let waits = async {
        while gateway.shared.snapshot()[0].waiting == 0 {
            tokio::task::yield_now().await;
        }
    };
    within("the second to wait", waits).await;
    replace(&gateway, Bounds::default(), region(&[&new.url()], "strict"));
    let mut peer = within("the new backend", async {
        tokio::select! {
            peer = new.accept() => peer,
            head = second.head() => panic!("answered without a backend: {head}"),
        }
    })
    .await;
    assert!(peer.answers("new").await.starts_with("get /second "));
    second.gets(200, "new").await;
    // What was going on ends as it began.
    busy.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold").await;
    first.gets(200, "old").await;
}

#[tokio::test]
async fn connections_to_backends_that_are_gone_do_not_pile_up() {
    let http2 = |url: String| super::secure::region(url, true);
    let backends = [Backend::start().await, Backend::start().await];
    let gateway = Gateway::of(http2(backends[0].url()), Bounds::default()).await;
    let mut client = gateway.connect().await;
    let mut before: Option<Peer> = None;
    for round in 0..4 {
        let backend = &backends[round % 2];
        replace(&gateway, Bounds::default(), http2(backend.url()));
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut peer = backend.accept_http2(&[]).await;
        let stream = peer.request().await;
        peer.grants(stream).await;
        assert!(client.head().await.starts_with("http/1.1 200 "));
        if let Some(mut before) = before.replace(peer) {
            before.rest().await;
        }
    }
}

#[tokio::test]
async fn a_backend_leaves_even_where_the_table_cannot_be_built_anew() {
    let authority = Authority::new();
    let (fixed, joined) = (Backend::start().await, Backend::start().await);
    let regions = region(&[&fixed.https()], "strict");
    let mut bounds = authority.trusted();
    let gateway = Gateway::of(regions.clone(), bounds.clone()).await;
    let name = RegionName::literal("1");
    let join = BackendSettings::primary(joined.url());
    let handle = gateway.shared.add_backend(&name, join).unwrap();
    // The file of the authority is gone at this moment.
    let ca = bounds.tls.ca.clone().unwrap();
    let pem = std::fs::read(&ca).unwrap();
    std::fs::remove_file(&ca).unwrap();
    handle.remove();
    let all = gateway.shared.snapshot().remove(0).backends;
    let taken =
        all.iter().filter(|one| !one.draining && one.address == joined.address().to_string());
    assert_eq!(taken.count(), 0, "its port may be another's by now");
    std::fs::write(&ca, pem).unwrap();
    bounds.proxy.via = Some("edge".to_owned());
    replace(&gateway, bounds, regions);
    assert_eq!(gateway.shared.snapshot()[0].backends.len(), 1, "the next table has it no more");
}
