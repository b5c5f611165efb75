//! Seats and presence over several nodes: deaths, outages, and the limits through all of it.

use std::time::SystemTime;

use super::*;
use crate::bus::contract::{limit, seat, stands};
use crate::bus::{SeatError, SeatHold, SeatLimit};
use crate::settings::OverLimit;

const LEASE: Duration = Duration::from_secs(2);

const TWO: SeatLimit = SeatLimit { most: 2, over: OverLimit::Refuse };

async fn node(redis: &RedisServer) -> Node {
    hanging_node(redis).await.0
}

/// A node, and what makes it hang.
async fn hanging_node(redis: &RedisServer) -> (Node, watch::Sender<bool>) {
    let settings = BusSettings {
        lease: LEASE,
        redis: RedisSettings {
            url: Some(Secret::new(redis.url())),
            command_timeout: COMMAND_TIMEOUT,
            reconnect_min: Duration::from_millis(20),
            reconnect_max: Duration::from_millis(200),
            ..RedisSettings::default()
        },
        ..BusSettings::default()
    };
    let bus = Bus::redis(&settings, &mut Registry::default()).unwrap();
    let heard = Arc::new(Recorder::default());
    bus.attach(Arc::clone(&heard) as Arc<dyn Deliver>);
    let (stop, (hang, hangs)) = (CancellationToken::new(), watch::channel(false));
    let mut task = JoinSet::new();
    let (running, stopped) = (bus.clone(), stop.clone());
    task.spawn(async move { gated(running.run(stopped), hangs).await });
    let mut node = Node { state: bus.state(), bus, heard, stop, task };
    node.up().await;
    (node, hang)
}

/// Drives `work`, but not while it `hangs`.
async fn gated(work: impl Future<Output = ()>, mut hangs: watch::Receiver<bool>) {
    let mut work = std::pin::pin!(work);
    loop {
        let hung = async { hangs.wait_for(|hangs| *hangs).await.is_ok() };
        let hung = tokio::select! {
            biased;
            hung = hung => hung,
            () = &mut work => return,
        };
        if !hung {
            // Nobody is left who could make it hang.
            return work.await;
        }
        drop(hangs.wait_for(|hangs| !*hangs).await);
    }
}

/// What `kill -9` is to everyone else: nothing of it is heard any more.
fn kill(node: Node) {
    drop(node.task);
}

/// Tries until there is a seat.
async fn seat_in_time(node: &Node, user: &str, limit: SeatLimit, patience: Duration) -> SeatHold {
    let trying = async {
        loop {
            let seat = node.bus.take_seat(user, limit);
            if seat.granted().await.is_ok() {
                return seat;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(patience, trying).await.expect("no seat in time")
}

async fn count(redis: &RedisServer, user: &str) -> String {
    redis.run(&["ZCARD", &format!("seats:{{chat:{user}}}")]).await
}

/// Waits until Redis knows of `seats` seats.
async fn counts(redis: &RedisServer, user: &str, seats: usize) {
    let wanted = format!(":{seats}\r\n");
    let waiting = async {
        while count(redis, user).await != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let patience = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(patience.is_ok(), "not {seats} but {}", count(redis, user).await);
}

#[tokio::test]
async fn the_limit_holds_over_all_nodes_and_presence_crosses_them() {
    let redis = RedisServer::start().await;
    let (one, two) = (node(&redis).await, node(&redis).await);
    let watch = two.bus.watch("bob");
    watch.confirmed().await.unwrap();
    let (first, second) = (seat(&one.bus, "bob", TWO).await, seat(&two.bus, "bob", TWO).await);
    two.heard.until("he came", |heard| heard.changes("bob") > 0).await;
    for node in [&one, &two] {
        assert_eq!(node.bus.take_seat("bob", TWO).granted().await, Err(SeatError::Full));
    }
    let came = two.heard.changes("bob");
    drop(first);
    let third = seat_in_time(&two, "bob", TWO, PATIENCE).await;
    drop((second, third));
    two.heard.until("he left", |heard| heard.changes("bob") > came).await;
    assert!(stands(&one.bus, "bob", false).await.last_seen_ms.is_some());
    let life = redis.run(&["TTL", "last:{chat:bob}"]).await;
    assert!(life.trim_start_matches(':').trim().parse::<i64>().unwrap() > 0, "{life}");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_new_seat_evicts_the_oldest_wherever_it_is() {
    let redis = RedisServer::start().await;
    let (one, two) = (node(&redis).await, node(&redis).await);
    let newest = limit(2, OverLimit::CloseOldest);
    let listens = one.bus.subscribe("bob");
    listens.confirmed().await.unwrap();
    let oldest = seat(&one.bus, "bob", newest).await;
    let _rest = (seat(&two.bus, "bob", newest).await, seat(&two.bus, "bob", newest).await);
    let number = oldest.number();
    one.heard.until("it is told", |heard| heard.evicted("bob") == [number]).await;
    assert!(two.heard.evicted("bob").is_empty());
    // Whoever hears nothing of it is told when he says his seat again.
    drop(listens);
    let deaf = seat(&one.bus, "carol", newest).await;
    let _rest = (seat(&two.bus, "carol", newest).await, seat(&two.bus, "carol", newest).await);
    deaf.confirm();
    let number = deaf.number();
    one.heard.until("it is told", |heard| heard.evicted("carol") == [number]).await;
    counts(&redis, "carol", 2).await;
    assert!(two.heard.evicted("carol").is_empty());
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn never_more_seats_than_the_limit_whoever_asks_at_once() {
    let redis = RedisServer::start().await;
    let nodes = [node(&redis).await, node(&redis).await];
    let five = limit(5, OverLimit::Refuse);
    for round in 0..10 {
        let user = format!("user{round}");
        let mut tasks = JoinSet::new();
        for index in 0..64 {
            let (bus, user) = (nodes[index % 2].bus.clone(), user.clone());
            tasks.spawn(async move {
                let seat = bus.take_seat(&user, five);
                seat.granted().await.map(|()| seat)
            });
        }
        let granted: Vec<_> = tasks.join_all().await.into_iter().filter_map(Result::ok).collect();
        assert_eq!(granted.len(), 5);
        assert_eq!(count(&redis, &user).await, ":5\r\n");
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_node_that_is_killed_frees_its_seats_within_a_lease() {
    let redis = RedisServer::start().await;
    let (one, two) = (node(&redis).await, node(&redis).await);
    let watch = two.bus.watch("bob");
    watch.confirmed().await.unwrap();
    let held = (seat(&one.bus, "bob", TWO).await, seat(&one.bus, "bob", TWO).await);
    two.heard.until("he came", |heard| heard.changes("bob") > 0).await;
    let alive = two.bus.presence("bob").await.unwrap();
    let came = two.heard.changes("bob");
    let killed = Instant::now();
    kill(one);
    let end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    two.heard.until("his node died", |heard| heard.changes("bob") > came).await;
    let gone = two.bus.presence("bob").await.unwrap();
    assert!(killed.elapsed() < 2 * LEASE, "noticed after {:?}", killed.elapsed());
    assert!(!gone.online);
    // The last beat of the node: not before the lease, and not after it was killed.
    let (gone, alive) = (gone.last_seen_ms.unwrap(), alive.last_seen_ms.unwrap());
    assert!((u128::from(alive) - 2_000..=end).contains(&u128::from(gone)), "{gone} after {alive}");
    let _both = (seat(&two.bus, "bob", TWO).await, seat(&two.bus, "bob", TWO).await);
    assert_eq!(two.metrics().seats_freed.get(), 2);
    drop(held);
    two.stop().await;
}

#[tokio::test]
async fn seats_of_a_dead_node_are_no_hindrance_though_nobody_watched() {
    let redis = RedisServer::start().await;
    let (one, two) = (node(&redis).await, node(&redis).await);
    let held = (seat(&one.bus, "bob", TWO).await, seat(&one.bus, "bob", TWO).await);
    assert_eq!(two.bus.take_seat("bob", TWO).granted().await, Err(SeatError::Full));
    let killed = Instant::now();
    kill(one);
    let third = seat_in_time(&two, "bob", TWO, PATIENCE).await;
    assert!(killed.elapsed() < 2 * LEASE, "{:?}", killed.elapsed());
    drop((held, third));
    two.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_gives_its_seats_back_and_says_so() {
    let redis = RedisServer::start().await;
    let (one, two) = (node(&redis).await, node(&redis).await);
    let (held, other) = (seat(&one.bus, "bob", TWO).await, seat(&two.bus, "carol", TWO).await);
    drop(held);
    one.stop().await;
    assert_eq!(count(&redis, "bob").await, ":0\r\n");
    assert_eq!(redis.run(&["ZCARD", "alive:{chat:nodes}"]).await, ":1\r\n");
    assert!(!two.bus.presence("bob").await.unwrap().online);
    drop(other);
    two.stop().await;
}

#[tokio::test]
async fn an_outage_or_a_loss_of_data_restores_seats_and_presence() {
    let mut redis = RedisServer::start().await;
    let (mut one, mut two) = (node(&redis).await, node(&redis).await);
    let (first, gone) = (seat(&one.bus, "bob", TWO).await, seat(&one.bus, "carol", TWO).await);
    let watch = two.bus.watch("bob");
    watch.confirmed().await.unwrap();

    redis.kill();
    one.down().await;
    two.down().await;
    // Somebody leaves, and somebody comes, while nobody can be told.
    drop(gone);
    let late = one.bus.take_seat("dave", TWO);
    assert!(matches!(late.granted().await, Err(SeatError::Unavailable(_))));
    drop(one.bus.take_seat("never told", TWO));
    let changes = two.heard.changes("bob");
    redis.up().await;
    one.up().await;
    two.up().await;
    two.heard.until("it asks anew", |heard| heard.changes("bob") > changes).await;
    assert!(stands(&two.bus, "bob", true).await.online);
    stands(&two.bus, "dave", true).await;
    stands(&two.bus, "carol", false).await;
    counts(&redis, "bob", 1).await;

    redis.run(&["FLUSHALL"]).await;
    stands(&two.bus, "bob", true).await;
    stands(&two.bus, "dave", true).await;
    counts(&redis, "bob", 1).await;
    drop((first, late));
    stands(&two.bus, "bob", false).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_node_that_was_taken_for_dead_comes_right_and_takes_nothing_back() {
    let redis = RedisServer::start().await;
    let ((one, hang), two) = (hanging_node(&redis).await, node(&redis).await);
    let watch = two.bus.watch("bob");
    watch.confirmed().await.unwrap();
    let held = [seat(&one.bus, "bob", TWO).await, seat(&one.bus, "bob", TWO).await];
    let carol = seat(&one.bus, "carol", TWO).await;
    hang.send_replace(true);
    let third = seat_in_time(&two, "bob", TWO, LEASE * 2).await;
    counts(&redis, "bob", 1).await;
    stands(&two.bus, "carol", false).await;
    hang.send_replace(false);
    // One of its two seats has room, the other one is another's now.
    one.heard.until("it is told", |heard| heard.evicted("bob").len() == 1).await;
    counts(&redis, "bob", 2).await;
    stands(&two.bus, "carol", true).await;
    assert!(two.heard.evicted("bob").is_empty());
    drop((third, held));
    let last = two.heard.changes("bob");
    two.heard.until("nobody is left", |heard| heard.changes("bob") > last).await;
    stands(&two.bus, "bob", false).await;
    drop(carol);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_node_costs_next_to_nothing_while_nothing_happens() {
    let redis = RedisServer::start().await;
    let node = node(&redis).await;
    let mut seats = Vec::new();
    for user in 0..100 {
        seats.push(seat(&node.bus, &format!("user{user}"), TWO).await);
    }
    let calls = async || -> u64 {
        let report = redis.run(&["INFO", "commandstats"]).await;
        let scripts = report.lines().filter(|line| line.starts_with("cmdstat_eval"));
        let calls = scripts.filter_map(|line| line.split("calls=").nth(1)?.split(',').next());
        calls.map(|calls| calls.parse::<u64>().unwrap()).sum()
    };
    let (begun, before) = (Instant::now(), calls().await);
    tokio::time::sleep(LEASE).await;
    let scripts = calls().await - before;
    let took = begun.elapsed().as_millis();
    // Two probes and four beats, whatever the number of seats; and one of each for the moments between.
    let is_in_time = u128::from(scripts) * LEASE.as_millis() <= 8 * took;
    assert!(scripts >= 4 && is_in_time, "{scripts} scripts in {took} ms");
    drop(seats);
    node.stop().await;
}
