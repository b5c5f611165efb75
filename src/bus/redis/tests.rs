//! The bus over a real Redis: the contract, and what becomes of it when Redis fails.

mod presence;

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::*;
use crate::bus::Bus;
use crate::bus::contract::{self, Recorder, send, try_send};
use crate::bus::redis_server::RedisServer;
use crate::settings::{InboxSettings, RedisSettings, Secret};

pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// A command waits this long here: a server that hangs costs a test little, and one that is slow on a busy machine is
/// waited for.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_millis(1_500);

/// One bus at work, and what it delivered.
pub(super) struct Node {
    pub(super) bus: Bus,
    pub(super) heard: Arc<Recorder>,
    state: watch::Receiver<BusState>,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Node {
    pub(super) fn start(redis: &RedisServer) -> Self {
        Self::start_with(&redis.url(), COMMAND_TIMEOUT)
    }

    pub(super) fn start_with(url: &str, command_timeout: Duration) -> Self {
        Self::start_of(&settings(url, command_timeout))
    }

    /// With the place of Redis as in `redis`.
    pub(super) fn start_at(redis: RedisSettings) -> Self {
        let usual = settings("redis://h", COMMAND_TIMEOUT);
        let RedisSettings { reconnect_min, reconnect_max, .. } = usual.redis;
        let redis = RedisSettings { reconnect_min, reconnect_max, ..redis };
        Self::start_of(&BusSettings { redis, ..usual })
    }

    pub(super) fn start_of(settings: &BusSettings) -> Self {
        let bus = Bus::redis(settings, &mut Registry::default()).unwrap();
        let heard = Arc::new(Recorder::default());
        bus.attach(Arc::clone(&heard) as Arc<dyn Deliver>);
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        let (running, stopped) = (bus.clone(), stop.clone());
        task.spawn(async move { running.run(stopped).await });
        let state = bus.state();
        Self { bus, heard, state, stop, task }
    }

    pub(super) fn state(&self) -> BusState {
        self.state.borrow().clone()
    }

    pub(super) async fn up(&mut self) {
        self.until("up", |state| *state == BusState::Up).await;
    }

    pub(super) async fn down(&mut self) {
        self.until("down", |state| *state != BusState::Up).await;
    }

    pub(super) async fn up_within(&mut self, patience: Duration) {
        let up = self.state.wait_for(|state| *state == BusState::Up);
        let wait = tokio::time::timeout(patience, up).await.is_ok();
        assert!(wait, "waited in vain until up: {:?}", *self.state.borrow());
    }

    pub(super) async fn until(&mut self, what: &str, is_so: impl FnMut(&BusState) -> bool) {
        let wait = tokio::time::timeout(PATIENCE, self.state.wait_for(is_so)).await.is_ok();
        assert!(wait, "waited in vain until {what}: {:?}", *self.state.borrow());
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task.join_all()).await.expect("it does not stop");
    }

    pub(super) fn metrics(&self) -> crate::bus::metrics::Metrics {
        let Bus::Redis(redis) = &self.bus else { panic!("a Redis bus was asked for") };
        redis.common.metrics.clone()
    }
}

pub(super) fn settings(url: &str, command_timeout: Duration) -> BusSettings {
    BusSettings {
        redis: RedisSettings {
            url: Some(Secret::new(url)),
            command_timeout,
            reconnect_min: Duration::from_millis(20),
            reconnect_max: Duration::from_millis(200),
            ..RedisSettings::default()
        },
        inbox: InboxSettings { max_messages: 10.try_into().unwrap(), ..Default::default() },
        ..BusSettings::default()
    }
}

/// Asks again, as a client does, for as long as the bus is away.
macro_rules! until_taken {
    ($call:expr) => {
        async {
            let tries = async {
                loop {
                    match $call.await {
                        Ok(answer) => return answer,
                        Err($crate::bus::BusError::Unavailable(_)) => {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    }
                }
            };
            tokio::time::timeout(std::time::Duration::from_mins(1), tries)
                .await
                .expect("the bus stays away")
        }
        .await
    };
}
pub(super) use until_taken;

async fn assert_refused_at_once(bus: &Bus) {
    let mut times = Vec::new();
    // None of them waits for a command; a busy machine may let one wait, and not all.
    while times.iter().all(|time| *time >= COMMAND_TIMEOUT) {
        assert!(times.len() < 10, "refused after {times:?}");
        let began = Instant::now();
        let envelope =
            Envelope { to: "bob", from: "alice", id: "x", at_ms: 1, head: b"", tail: b"" };
        assert!(bus.publish(envelope).await.is_err());
        assert!(bus.signal("bob", Bytes::new()).await.is_err());
        assert!(bus.read("bob", 0).await.is_err());
        assert!(bus.subscribe("new").confirmed().await.is_err());
        times.push(began.elapsed());
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let redis = RedisServer::start().await;
    let mut node = Node::start(&redis);
    node.up().await;
    contract::run(&node.bus, &node.heard, 10).await;
    node.stop().await;
}

#[tokio::test]
async fn two_nodes_hear_each_other_and_so_does_a_listener_outside() {
    let redis = RedisServer::start().await;
    let (mut one, mut two) = (Node::start(&redis), Node::start(&redis));
    one.up().await;
    two.up().await;
    let mut outside = redis.listener("chat:bob").await;
    let listening = two.bus.subscribe("bob");
    listening.confirmed().await.unwrap();
    one.bus.signal("bob", Bytes::from_static(b"{}")).await.unwrap();
    send(&one.bus, "bob", "1").await;
    two.heard.until("the message came", |heard| heard.seqs("bob") == [1]).await;
    assert!(send(&two.bus, "bob", "1").await.duplicate);
    let frame = r#"{"type":"message","id":"1","seq":1,"more":""}"#;
    let exact = format!("message\r\n$8\r\nchat:bob\r\n${}\r\n{frame}\r\n", frame.len());
    outside.hears(&format!(":1\r\n*3\r\n$7\r\n{exact}")).await;
    assert!(one.heard.messages("bob").is_empty());

    drop(listening);
    two.bus.subscribe("other").confirmed().await.unwrap();
    let listeners = redis.run(&["PUBSUB", "NUMSUB", "chat:bob", "chat:other"]).await;
    assert!(listeners.contains("chat:bob\r\n:1\r\n"), "not only the listener outside: {listeners}");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_no_hub_published_is_dropped_and_counted() {
    let redis = RedisServer::start().await;
    let mut node = Node::start(&redis);
    node.up().await;
    let subscription = node.bus.subscribe("bob");
    subscription.confirmed().await.unwrap();
    for foreign in ["hello", r#"{"seq":0}"#, r#"{"seq":"1"}"#, "{}", ""] {
        redis.run(&["PUBLISH", "chat:bob", foreign]).await;
    }
    send(&node.bus, "bob", "1").await;
    node.heard.until("the true one came", |heard| heard.seqs("bob") == [1]).await;
    assert_eq!(node.metrics().foreign.get(), 5);
    node.stop().await;
}

#[tokio::test]
async fn starts_before_redis_does() {
    let mut redis = RedisServer::prepare();
    let mut node = Node::start(&redis);
    let wanted = node.bus.subscribe("bob");
    assert_refused_at_once(&node.bus).await;
    assert!(wanted.confirmed().await.is_err());
    redis.up().await;
    node.up().await;
    assert!(node.heard.gaps() > 0, "who was told that nothing is confirmed must be told to look");
    wanted.confirmed().await.unwrap();
    send(&node.bus, "bob", "1").await;
    node.heard.until("the message came", |heard| heard.seqs("bob") == [1]).await;
    node.stop().await;
}

#[tokio::test]
async fn outlives_a_kill_of_redis() {
    let mut redis = RedisServer::start().await;
    let mut node = Node::start(&redis);
    node.up().await;
    // More users than go into one batch.
    let users: Vec<_> = (0..600).map(|user| node.bus.subscribe(&format!("user{user}"))).collect();
    for user in &users {
        user.confirmed().await.unwrap();
    }
    send(&node.bus, "user599", "1").await;
    let before = node.bus.read("user599", 0).await.unwrap();
    let gaps = node.heard.gaps();

    redis.kill();
    let killed = Instant::now();
    node.down().await;
    assert!(killed.elapsed() < Duration::from_secs(5), "noticed after {:?}", killed.elapsed());
    assert_refused_at_once(&node.bus).await;

    redis.up().await;
    node.up().await;
    assert!(node.heard.gaps() > gaps);
    for user in &users {
        user.confirmed().await.unwrap();
    }
    assert_eq!(node.bus.read("user599", 0).await.unwrap(), before);
    // A repeat of what was acknowledged before is still known, and the count goes on.
    assert!(send(&node.bus, "user599", "1").await.duplicate);
    assert_eq!(send(&node.bus, "user599", "2").await.seq, 2);
    node.heard.until("both came", |heard| heard.seqs("user599") == [1, 2]).await;
    node.stop().await;
}

#[tokio::test]
async fn restores_a_listening_connection_that_was_killed() {
    let redis = RedisServer::start().await;
    let mut node = Node::start(&redis);
    node.up().await;
    let subscription = node.bus.subscribe("bob");
    subscription.confirmed().await.unwrap();
    let gaps = node.heard.gaps();
    redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    node.heard.until("the gap is reported", |heard| heard.gaps() > gaps).await;
    subscription.confirmed().await.unwrap();
    send(&node.bus, "bob", "1").await;
    node.heard.until("messages flow again", |heard| heard.seqs("bob") == [1]).await;
    node.up().await;
    node.stop().await;
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed_and_costs_no_call_more_than_its_timeout() {
    let redis = RedisServer::start().await;
    let mut node = Node::start(&redis);
    node.up().await;
    let subscription = node.bus.subscribe("bob");
    subscription.confirmed().await.unwrap();

    redis.pause();
    let began = Instant::now();
    let envelope = Envelope { to: "bob", from: "alice", id: "1", at_ms: 1, head: b"", tail: b"" };
    assert!(node.bus.publish(envelope).await.is_err());
    assert!(began.elapsed() < COMMAND_TIMEOUT * 3, "refused after {:?}", began.elapsed());
    node.down().await;
    assert!(began.elapsed() < Duration::from_secs(10), "noticed after {:?}", began.elapsed());

    redis.resume();
    node.up().await;
    subscription.confirmed().await.unwrap();
    let receipt = send(&node.bus, "bob", "2").await;
    node.heard.until("messages flow again", |heard| heard.seqs("bob").contains(&receipt.seq)).await;
    node.stop().await;
}

#[tokio::test]
async fn a_server_that_takes_no_writes_does_not_pass_for_one_that_works() {
    let redis = RedisServer::start().await;
    let mut node = Node::start(&redis);
    node.up().await;
    redis.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    node.until(
        "it says why",
        |state| matches!(state, BusState::Down(why) if why.contains("READONLY")),
    )
    .await;
    redis.run(&["REPLICAOF", "NO", "ONE"]).await;
    node.up().await;
    node.stop().await;
}

#[tokio::test]
async fn a_connection_that_listens_where_nothing_is_published_is_found_out() {
    let (published, listened) = (RedisServer::start().await, RedisServer::start().await);
    let settings = |redis: &RedisServer| RedisSettings {
        url: Some(Secret::new(redis.url())),
        command_timeout: COMMAND_TIMEOUT,
        ..RedisSettings::default()
    };
    let (here, there) = (settings(&published), settings(&listened));
    let finder = |settings| Finder::Fixed(Setup::new(settings).unwrap().nodes.remove(0));
    let finders = (finder(&here), finder(&there));
    let settings = BusSettings { redis: here, ..BusSettings::default() };
    let mut bus = RedisBus::new(&settings, &mut Registry::default()).unwrap();
    let metrics = bus.common.metrics.clone();
    let shard = Shard::new(finders, FIRST, &Tag::of_all(), &bus.common);
    bus.topology = Topology::One(Arc::new(shard), None);
    let (stop, mut state) = (CancellationToken::new(), bus.state());
    let found_out = async {
        let why = |state: &BusState| {
            assert_ne!(*state, BusState::Up);
            matches!(state, BusState::Down(why) if why.contains("did not come back"))
        };
        let found = tokio::time::timeout(PATIENCE, state.wait_for(why)).await.is_ok();
        assert!(found, "both connections stand, and nothing arrives: nobody noticed");
        stop.cancel();
    };
    tokio::join!(bus.run(stop.clone()), found_out);
    assert_eq!(metrics.probes_lost.get(), 1);
}

#[tokio::test]
async fn a_burst_loses_nothing() {
    const BURST: Seq = 100_000;
    let redis = RedisServer::start().await;
    // While it lasts no probe comes through, which on a busy machine would cost the connection.
    let mut settings = settings(&redis.url(), PATIENCE);
    settings.redis.probe_interval = PATIENCE;
    let mut node = Node::start_of(&settings);
    node.up().await;
    let subscription = node.bus.subscribe("bob");
    subscription.confirmed().await.unwrap();
    let script =
        r#"for i = 1, 100000 do redis.call('PUBLISH', 'chat:bob', '{"seq":' .. i .. '}') end"#;
    redis.run(&["EVAL", script, "0"]).await;
    node.heard.until("the last came", |heard| heard.last("bob") == Some(BURST)).await;
    assert_eq!(node.heard.seqs("bob"), (1..=BURST).collect::<Vec<_>>());
    node.stop().await;
}

#[tokio::test]
async fn everything_kept_in_redis_has_an_end() {
    let redis = RedisServer::start().await;
    let mut node = Node::start(&redis);
    node.up().await;
    send(&node.bus, "bob", "1").await;
    node.bus.read("carol", 0).await.unwrap();
    for key in
        ["meta:{chat:bob}", "inbox:{chat:bob}", "seen:{chat:bob}:alice 1", "meta:{chat:carol}"]
    {
        let life = redis.run(&["TTL", key]).await;
        let seconds: i64 = life.trim_start_matches(':').trim().parse().unwrap();
        assert!(seconds > 0, "{key} lives {life}");
    }
    // Beside them there are the probe, whose name is random, and the registry of nodes.
    while redis.run(&["TTL", "alive:{chat:nodes}"]).await != ":3600\r\n" {
        tokio::task::yield_now().await;
    }
    let life = redis.run(&["TTL", &names::lineage(&Tag::of_all().get())]).await;
    assert!(life.trim_start_matches(':').trim().parse::<i64>().unwrap() > 0, "{life}");
    assert_eq!(redis.run(&["DBSIZE"]).await, ":7\r\n");
    node.stop().await;
}

#[tokio::test]
async fn a_publish_in_flight_fails_when_the_connection_breaks() {
    let mut redis = RedisServer::start().await;
    // Long enough that what fails earlier did not time out.
    let mut node = Node::start_with(&redis.url(), PATIENCE);
    node.up().await;
    redis.pause();
    let began = Instant::now();
    let breaks = async {
        tokio::task::yield_now().await;
        redis.kill();
    };
    let envelope = Envelope { to: "bob", from: "alice", id: "1", at_ms: 1, head: b"", tail: b"" };
    let (published, ()) = tokio::join!(node.bus.publish(envelope), breaks);
    assert!(published.is_err());
    assert!(began.elapsed() < PATIENCE / 2, "failed after {:?}", began.elapsed());
    redis.up().await;
    node.up().await;
    let inbox = node.bus.read("bob", 0).await.unwrap();
    assert_eq!(inbox.messages, [], "it was sent again behind the caller's back");
    node.stop().await;
}

#[tokio::test]
async fn thousands_read_at_once_a_few_at_a_time_and_nobody_is_missed() {
    const USERS: usize = 3_000;
    let redis = RedisServer::start().await;
    let mut node = Node::start(&redis);
    node.up().await;
    let names: Vec<_> = (0..USERS).map(|user| format!("user{user}")).collect();
    for some in names.chunks(500) {
        let sends = some.iter().map(async |user| until_taken!(try_send(&node.bus, user, "1")));
        futures_util::future::join_all(sends).await;
    }
    redis.pause();
    let mut reading = JoinSet::new();
    for user in names {
        let bus = node.bus.clone();
        reading.spawn(async move {
            let mut pause = Duration::from_millis(20);
            loop {
                match bus.read(&user, 0).await {
                    Ok(replay) => return replay.messages.len(),
                    // The hub does the same.
                    Err(_) => tokio::time::sleep(pause.mul_f64(1.0 + fastrand::f64())).await,
                }
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        });
    }
    let reads = node.metrics().reads;
    let mut most = 0;
    let mut all = async || {
        let mut count = 0;
        while let Some(read) = reading.join_next().await {
            assert_eq!(read.unwrap(), 1);
            most = most.max(reads.get());
            count += 1;
        }
        (count, most)
    };
    let resumes = async {
        node.down().await;
        redis.resume();
    };
    let (read, ()) = tokio::join!(tokio::time::timeout(6 * PATIENCE, all()), resumes);
    let (count, most) = read.expect("somebody was missed");
    assert_eq!(count, USERS);
    assert!((1..=i64::try_from(commands::READS).unwrap()).contains(&most), "{most} at once");
    node.stop().await;
}

#[tokio::test]
async fn logs_in_where_a_password_is_set_and_says_where_it_cannot() {
    let redis = RedisServer::start().await;
    redis.run(&["ACL", "SETUSER", "hub", "on", ">s3cret", "~*", "&*", "+@all"]).await;
    redis.run(&["CONFIG", "SET", "requirepass", "secret"]).await;
    for right in ["hub:s3cret", ":secret"] {
        let url = redis.url().replace("://", &format!("://{right}@"));
        let mut node = Node::start_with(&url, COMMAND_TIMEOUT);
        node.up().await;
        node.stop().await;
    }
    let mut node = Node::start(&redis);
    node.until(
        "it says why",
        |state| matches!(state, BusState::Down(why) if why.contains("NOAUTH")),
    )
    .await;
    node.stop().await;
}
