//! Backends of changing moods, and a gateway whose health is watched over.
//!
//! Time is real here, and short; where something is to happen by itself, it is waited for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::proxy::BackendSnapshot;
use crate::settings::Settings;

/// What a ward does with the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Answers(u16),
    /// Closes without an answer.
    Resets,
    Silent,
}

/// A backend of changing moods: one for probes (they ask for `/health`), one for everybody else.
pub(super) struct Ward {
    pub(super) address: SocketAddr,
    moods: Arc<Mutex<(Mood, Mood)>>,
    probes: Arc<AtomicUsize>,
    /// Probes that wait for an answer now, and the most there ever were.
    pub(super) waiting: Arc<(AtomicUsize, AtomicUsize)>,
    requests: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Ward {
    pub(super) async fn start() -> Self {
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

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For probes from now on.
    pub(super) fn probed(&self, mood: Mood) {
        self.moods.lock().unwrap().0 = mood;
    }

    /// For everybody else.
    pub(super) fn asked(&self, mood: Mood) {
        self.moods.lock().unwrap().1 = mood;
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(super) fn probes(&self) -> usize {
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
pub(super) struct Clinic {
    pub(super) gateway: Gateway,
    _watch: JoinSet<()>,
}

/// Probes twice a second and more, decisions at the first word, and ejections that outlast a test.
fn quick(settings: &mut Settings) {
    let health = &mut settings.health;
    health.interval = Duration::from_millis(50);
    health.timeout = Duration::from_secs(5);
    (health.rise, health.fall) = (std::num::NonZeroU32::MIN, std::num::NonZeroU32::MIN);
    health.passive = false;
    health.eject = Duration::from_mins(1);
}

impl Clinic {
    pub(super) async fn start(wards: &[&Ward], change: impl FnOnce(&mut Settings)) -> Self {
        let backends = wards.iter().map(|ward| BackendSettings::primary(ward.url())).collect();
        Self::of(RegionSettings { backends, ..RegionSettings::default() }, change).await
    }

    pub(super) async fn of(region: RegionSettings, change: impl FnOnce(&mut Settings)) -> Self {
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
    pub(super) async fn posts(&self, count: usize) -> BTreeMap<u16, usize> {
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
    pub(super) fn sum(&self, name: &str) -> i64 {
        let text = encode(&self.gateway.registry).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum()
    }

    pub(super) fn backend(&self, index: usize) -> BackendSnapshot {
        self.gateway.shared.snapshot()[0].backends[index].clone()
    }

    pub(super) async fn state(&self, index: usize, state: &str) {
        let arrives = async {
            while self.backend(index).health.state != state {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(state, arrives).await;
    }
}
