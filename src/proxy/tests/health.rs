//! Backends that fall ill: who notices, what becomes of the requests, and who is not to blame.
//!
//! Time is real here, and short; where something is to happen by itself, it is waited for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

use super::secure::{Authority, region};
use super::*;
use crate::proxy::BackendSnapshot;
use crate::settings::{BreakerSettings, HealthSettings, ProbeKind, Settings, WhenExceeded};

/// What a ward does with the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Answers(u16),
    /// Closes without an answer.
    Resets,
    Silent,
}

/// A backend of changing moods: one for probes (they ask for `/health`), one for everybody else.
struct Ward {
    address: SocketAddr,
    moods: Arc<Mutex<(Mood, Mood)>>,
    probes: Arc<AtomicUsize>,
    /// Probes that wait for an answer now, and the most there ever were.
    waiting: Arc<(AtomicUsize, AtomicUsize)>,
    requests: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Ward {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        let ward = Self {
            address,
            moods: Arc::new(Mutex::new((Mood::Answers(200), Mood::Answers(200)))),
            probes: Arc::default(),
            waiting: Arc::default(),
            requests: Arc::default(),
            _task: JoinSet::new(),
        };
        let (moods, probes) = (Arc::clone(&ward.moods), Arc::clone(&ward.probes));
        let (waiting, requests) = (Arc::clone(&ward.waiting), Arc::clone(&ward.requests));
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (moods, probes) = (Arc::clone(&moods), Arc::clone(&probes));
                let (waiting, requests) = (Arc::clone(&waiting), Arc::clone(&requests));
                connections.spawn(async move {
                    serve(stream, &moods, (&probes, &waiting), &requests).await;
                });
            }
        });
        Self { _task: task, ..ward }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For probes from now on.
    fn probed(&self, mood: Mood) {
        self.moods.lock().unwrap().0 = mood;
    }

    /// For everybody else.
    fn asked(&self, mood: Mood) {
        self.moods.lock().unwrap().1 = mood;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn probes(&self) -> usize {
        self.probes.load(Ordering::SeqCst)
    }
}

async fn serve(
    stream: TcpStream,
    moods: &Mutex<(Mood, Mood)>,
    (probes, waiting): (&AtomicUsize, &(AtomicUsize, AtomicUsize)),
    requests: &AtomicUsize,
) {
    let mut peer = Peer::new(stream);
    loop {
        let Some(head) = next_head(&mut peer).await else { return };
        let is_probe = head.starts_with("GET /health ");
        let (of_probes, of_others) = *moods.lock().unwrap();
        let mood = if is_probe {
            probes.fetch_add(1, Ordering::SeqCst);
            of_probes
        } else {
            requests.fetch_add(1, Ordering::SeqCst);
            of_others
        };
        match mood {
            Mood::Answers(status) => {
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok");
                if peer.stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Mood::Resets => return,
            Mood::Silent => {
                let now = waiting.0.fetch_add(1, Ordering::SeqCst) + 1;
                waiting.1.fetch_max(now, Ordering::SeqCst);
                while let Ok(1..) = peer.stream.read_buf(&mut peer.read).await {}
                waiting.0.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        }
    }
}

/// The next request's head, with its body of two bytes where it is a POST; `None` at the end.
async fn next_head(peer: &mut Peer) -> Option<String> {
    loop {
        if let Some(at) = peer.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let is_post = peer.read.starts_with(b"POST");
            let end = at + 4 + if is_post { 2 } else { 0 };
            if peer.read.len() >= end {
                let rest = peer.read.split_off(end);
                let whole = std::mem::replace(&mut peer.read, rest);
                return Some(String::from_utf8_lossy(&whole).into_owned());
            }
        }
        if !matches!(peer.stream.read_buf(&mut peer.read).await, Ok(1..)) {
            return None;
        }
    }
}

/// A gateway whose health is watched over.
struct Clinic {
    gateway: Gateway,
    _watch: JoinSet<()>,
}

/// Probes twice a second and more, decisions at the first word, and ejections that outlast a test.
fn quick(settings: &mut Settings) {
    let health = &mut settings.health;
    health.interval = Duration::from_millis(50);
    health.timeout = Duration::from_millis(500);
    (health.rise, health.fall) = (std::num::NonZeroU32::MIN, std::num::NonZeroU32::MIN);
    health.passive = false;
    health.eject = Duration::from_mins(1);
}

impl Clinic {
    async fn start(wards: &[&Ward], change: impl FnOnce(&mut Settings)) -> Self {
        let backends = wards.iter().map(|ward| BackendSettings::primary(ward.url())).collect();
        Self::of(RegionSettings { backends, ..RegionSettings::default() }, change).await
    }

    async fn of(region: RegionSettings, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        quick(&mut settings);
        change(&mut settings);
        let gateway = Gateway::of(region, Bounds::from(&settings)).await;
        let mut watch = JoinSet::new();
        let shared = Arc::clone(&gateway.shared);
        watch.spawn(async move { shared.watch_health(CancellationToken::new()).await });
        Self { gateway, _watch: watch }
    }

    /// Sends so many requests that cannot be repeated, each on a connection of its own, and counts the statuses.
    async fn posts(&self, count: usize) -> BTreeMap<u16, usize> {
        let mut statuses = BTreeMap::new();
        for _ in 0..count {
            let mut client = self.gateway.connect().await;
            client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
            let head = client.head().await;
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            *statuses.entry(status).or_default() += 1;
        }
        statuses
    }

    /// Of all series of a name.
    fn sum(&self, name: &str) -> i64 {
        let text = encode(&self.gateway.registry).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum()
    }

    fn backend(&self, index: usize) -> BackendSnapshot {
        self.gateway.shared.snapshot()[0].backends[index].clone()
    }

    async fn state(&self, index: usize, state: &str) {
        let arrives = async {
            while self.backend(index).health.state != state {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(state, arrives).await;
    }
}

#[tokio::test]
async fn probes_alone_take_a_backend_out_and_bring_it_back() {
    let (ill, well) = (Ward::start().await, Ward::start().await);
    let clinic = Clinic::start(&[&ill, &well], |s| s.health.active = ProbeKind::Http).await;
    clinic.state(0, "up").await;
    clinic.state(1, "up").await;
    assert_eq!(clinic.posts(10).await, BTreeMap::from([(200, 10)]));
    assert_eq!((ill.requests(), well.requests()), (5, 5));
    ill.probed(Mood::Answers(503));
    clinic.state(0, "down").await;
    let why = clinic.backend(0).health.marks[0].why.clone();
    assert_eq!(why, "1 probes failed, the last: status 503, which is not 200-399");
    clinic.posts(10).await;
    assert_eq!((ill.requests(), well.requests()), (5, 15));
    ill.probed(Mood::Answers(204));
    clinic.state(0, "up").await;
    clinic.posts(10).await;
    assert_eq!((ill.requests(), well.requests()), (10, 20));
    // What probes find is theirs: the exchanges that all went well did not open or close anything.
    assert_eq!(clinic.sum("proxy_backend_ejections_total"), 0);
}

#[tokio::test]
async fn a_lone_backend_that_is_down_is_not_asked() {
    let ill = Ward::start().await;
    ill.probed(Mood::Resets);
    let clinic = Clinic::start(&[&ill], |s| s.health.active = ProbeKind::Http).await;
    // The first probe decides, and no `fall` is waited for.
    clinic.state(0, "down").await;
    assert_eq!(clinic.posts(3).await, BTreeMap::from([(503, 3)]));
    assert_eq!(ill.requests(), 0);
}

#[tokio::test]
async fn a_probe_that_hangs_ends_and_is_never_two() {
    let ill = Ward::start().await;
    ill.probed(Mood::Silent);
    let clinic = Clinic::start(&[&ill], |s| {
        s.health.active = ProbeKind::Http;
        s.health.interval = Duration::from_millis(1);
    })
    .await;
    clinic.state(0, "down").await;
    let failure = clinic.backend(0).health.probe.unwrap().failure.unwrap();
    assert_eq!(failure, "no answer within 500ms");
    let more = async {
        while ill.probes() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("more probes", more).await;
    assert_eq!(ill.waiting.1.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_probe_may_want_a_text_a_connection_or_a_handshake() {
    let ward = Ward::start().await;
    let dead: SocketAddr = dead_url().await.trim_start_matches("http://").parse().unwrap();
    for (kind, text, state) in [
        (ProbeKind::Http, Some("ok"), "up"),
        (ProbeKind::Http, Some("fine"), "down"),
        (ProbeKind::Tcp, None, "up"),
        // It answers a handshake with 200.
        (ProbeKind::Ws, None, "down"),
    ] {
        let clinic = Clinic::start(&[&ward], |s| {
            s.health.active = kind;
            s.health.expect_body = text.map(str::to_owned);
        })
        .await;
        clinic.state(0, state).await;
        if kind == ProbeKind::Ws {
            let failure = clinic.backend(0).health.probe.unwrap().failure.unwrap();
            assert_eq!(failure, "status 200, which is not 101");
        }
    }
    let gone = Ward { address: dead, ..Ward::start().await };
    for kind in [ProbeKind::Http, ProbeKind::Tcp, ProbeKind::Ws] {
        let clinic = Clinic::start(&[&gone], |s| s.health.active = kind).await;
        clinic.state(0, "down").await;
        let failure = clinic.backend(0).health.probe.unwrap().failure.unwrap();
        assert!(failure.starts_with("no connection: "), "{failure}");
    }
}

#[tokio::test]
async fn a_backend_that_speaks_websocket_is_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let ward = Ward { address: listener.local_addr().unwrap(), ..Ward::start().await };
    let clinic = Clinic::start(&[&ward], |s| {
        s.health.active = ProbeKind::Ws;
        s.health.host = Some("shop.example".to_owned());
    })
    .await;
    let (stream, _) = within("a probe", listener.accept()).await.unwrap();
    let mut socket = within("a handshake", tokio_tungstenite::accept_async(stream)).await.unwrap();
    clinic.state(0, "up").await;
    let goodbye = within("a goodbye", futures_util::StreamExt::next(&mut socket)).await;
    assert!(goodbye.unwrap().unwrap().is_close());
}

#[tokio::test]
async fn a_probe_goes_the_way_of_the_exchanges() {
    let authority = Authority::new();
    for (tls, http2) in [(true, false), (true, true), (false, true)] {
        let backend = Backend::start().await;
        let url = if tls { backend.https() } else { backend.url() };
        let clinic = Clinic::of(region(url, http2), |s| {
            s.tls.backends = authority.trusted().tls;
            s.health.active = ProbeKind::Http;
            s.health.host = Some("shop.example".to_owned());
            s.health.expect_body = Some("well".to_owned());
        })
        .await;
        let stream = backend.accept().await.stream;
        let alpn: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
        let acceptor = authority.server("127.0.0.1", &[alpn], false);
        let mut server = JoinSet::new();
        server.spawn(async move {
            if tls {
                let stream = within("a handshake", acceptor.accept(stream)).await.unwrap();
                says_well(stream, http2).await;
            } else {
                says_well(stream, http2).await;
            }
        });
        clinic.state(0, "up").await;
        within("the end of the connection", server.join_next()).await.unwrap().unwrap();
    }
}

/// Serves one connection, on which everything is well.
async fn says_well(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    http2: bool,
) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let host = request.uri().host().map(str::to_owned);
        let host = host.or_else(|| Some(request.headers()["host"].to_str().ok()?.to_owned()));
        let well = request.uri().path() == "/health" && host.as_deref() == Some("shop.example");
        let body = if well { "all is well" } else { "who?" };
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body))))
    });
    let io = TokioIo::new(stream);
    // A probe that is over says no goodbye.
    if http2 {
        let exec = hyper_util::rt::TokioExecutor::new();
        hyper::server::conn::http2::Builder::new(exec).serve_connection(io, service).await.ok();
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await.ok();
    }
}

#[tokio::test]
async fn exchanges_alone_eject_and_the_share_holds() {
    let wards = [Ward::start().await, Ward::start().await, Ward::start().await];
    let passive = |s: &mut Settings| s.health.passive = true;
    let clinic = Clinic::start(&wards.each_ref(), passive).await;
    wards[0].asked(Mood::Resets);
    // The failures are the clients'; after the fifth in a row there are no more.
    let statuses = clinic.posts(60).await;
    assert_eq!(statuses, BTreeMap::from([(200, 55), (502, 5)]));
    assert_eq!(clinic.backend(0).health.state, "ejected");
    assert_eq!(clinic.sum("proxy_backend_ejections_total"), 1);
    assert_eq!(wards[0].probes() + wards[1].probes(), 0);
    // Of three, half is one. With the second, nobody counts as ejected.
    wards[1].asked(Mood::Resets);
    clinic.posts(30).await;
    assert_eq!(clinic.backend(1).health.state, "ejected");
    let before = wards[0].requests();
    clinic.posts(9).await;
    assert!(wards[0].requests() > before, "a panic uses all");
}

#[tokio::test]
async fn beyond_the_share_a_region_panics_or_fails() {
    for (when, status) in [(WhenExceeded::Panic, 502), (WhenExceeded::Fail, 503)] {
        let wards = [Ward::start().await, Ward::start().await];
        for ward in &wards {
            ward.asked(Mood::Resets);
        }
        let clinic = Clinic::start(&wards.each_ref(), |s| {
            s.health.passive = true;
            s.health.when_exceeded = when;
        })
        .await;
        clinic.posts(10).await;
        assert_eq!(clinic.gateway.shared.table().regions[0].backends.usable().well, 0);
        let before = wards[0].requests() + wards[1].requests();
        assert_eq!(clinic.posts(4).await, BTreeMap::from([(status, 4)]));
        let asked = wards[0].requests() + wards[1].requests() - before;
        assert_eq!(asked, if status == 502 { 4 } else { 0 }, "{when:?}");
    }
}

#[tokio::test]
async fn probes_and_exchanges_each_have_their_say() {
    let (ill, well) = (Ward::start().await, Ward::start().await);
    let clinic = Clinic::start(&[&ill, &well], |s| {
        s.health.active = ProbeKind::Http;
        s.health.passive = true;
    })
    .await;
    clinic.state(0, "up").await;
    // Its probes go well and its exchanges do not.
    ill.asked(Mood::Resets);
    assert_eq!(clinic.posts(40).await.get(&502), Some(&5));
    assert_eq!(clinic.backend(0).health.state, "ejected");
    ill.probed(Mood::Answers(500));
    clinic.state(0, "down").await;
    let marks: Vec<_> = clinic.backend(0).health.marks.iter().map(|mark| mark.mark).collect();
    assert_eq!(marks, ["down", "ejected"]);
}

#[tokio::test]
async fn a_breaker_answers_for_a_backend_and_lets_trials_find_out() {
    let ill = Ward::start().await;
    let clinic = Clinic::start(&[&ill], |s| {
        s.breaker = BreakerSettings {
            enabled: true,
            consecutive: 3,
            open: Duration::from_millis(100),
            ..BreakerSettings::default()
        };
    })
    .await;
    ill.asked(Mood::Resets);
    let statuses = clinic.posts(6).await;
    assert_eq!(statuses.get(&502), Some(&3), "{statuses:?}");
    assert_eq!(ill.requests(), 3);
    clinic.state(0, "half-open").await;
    ill.asked(Mood::Answers(200));
    assert_eq!(clinic.posts(5).await, BTreeMap::from([(200, 5)]));
    assert_eq!(clinic.backend(0).health.state, "up");
    assert_eq!(clinic.sum("proxy_breaker_opened_total"), 1);
}

#[tokio::test]
async fn clients_that_misbehave_or_leave_are_nobodys_fault() {
    let ward = Ward::start().await;
    ward.asked(Mood::Silent);
    let clinic = Clinic::start(&[&ward], |s| {
        s.health.passive = true;
        s.breaker.enabled = true;
        (s.health.consecutive, s.breaker.consecutive) = (1, 1);
    })
    .await;
    for _ in 0..3 {
        let mut client = clinic.gateway.connect().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.say(format!("{head}xyz\r\n")).await;
        assert!(client.head().await.starts_with("http/1.1 400 "));
    }
    for _ in 0..3 {
        let before = ward.requests();
        let mut client = clinic.gateway.connect().await;
        client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhi").await;
        let asked = async {
            while ward.requests() == before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within("the backend to be asked", asked).await;
        // In the middle of its body.
        drop(client);
    }
    clinic.gateway.idle().await;
    assert_eq!(clinic.backend(0).health.state, "up");
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_and_ends_what_is_turned_off() {
    let (ill, well) = (Ward::start().await, Ward::start().await);
    let mut settings = Settings::default();
    let clinic = Clinic::start(&[&ill, &well], |s| {
        s.health.active = ProbeKind::Http;
        settings = s.clone();
    })
    .await;
    ill.probed(Mood::Answers(500));
    clinic.state(0, "down").await;
    let regions = |urls: &[String]| {
        let backends = urls.iter().map(BackendSettings::primary).collect();
        let region = RegionSettings { backends, ..RegionSettings::default() };
        BTreeMap::from([(RegionName::literal("1"), region)])
    };
    let shared = &clinic.gateway.shared;
    let new = Ward::start().await;
    shared.replace(&settings, &regions(&[ill.url(), new.url()]), None).unwrap();
    assert_eq!(clinic.backend(0).health.state, "down");
    assert_eq!(clinic.backend(1).health.state, "unknown");
    clinic.state(1, "up").await;
    // The one that left is probed no more; one more may have been on its way.
    let (at_most, seen) = (well.probes() + 1, new.probes());
    let more = async {
        while new.probes() < seen + 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("more probes", more).await;
    assert!(well.probes() <= at_most);
    settings.health = HealthSettings::default();
    shared.replace(&settings, &regions(&[ill.url(), new.url()]), None).unwrap();
    assert_eq!(clinic.backend(0).health.state, "up", "nobody says that it is down any more");
}
