//! What every bus must do; the same cases run against the embedded one and against a real Redis.
//!
//! Each case brings users of its own, so that all of them may share one bus.

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;

use super::recorder::PATIENCE;
pub(super) use super::recorder::Recorder;
use super::{
    Bus, BusError, Draw, Envelope, Presence, Receipt, SeatError, SeatHold, SeatLimit, Seq,
};
use crate::rate::Rate;
use crate::settings::OverLimit;

/// Publishes one message `id` of alice's, and says what listeners must see.
pub(super) async fn send(bus: &Bus, to: &str, id: &str) -> Receipt {
    send_of(bus, "alice", to, id, "").await
}

/// Likewise, where the bus may refuse.
pub(super) async fn try_send(bus: &Bus, to: &str, id: &str) -> Result<Receipt, BusError> {
    publish(bus, "alice", to, id, "").await
}

async fn send_of(bus: &Bus, from: &str, to: &str, id: &str, more: &str) -> Receipt {
    publish(bus, from, to, id, more).await.unwrap()
}

async fn publish(
    bus: &Bus,
    from: &str,
    to: &str,
    id: &str,
    more: &str,
) -> Result<Receipt, BusError> {
    let head = format!(r#"{{"type":"message","id":"{id}","seq":"#);
    let tail = format!(r#","more":"{more}"}}"#);
    let envelope = Envelope {
        to,
        from,
        id,
        at_ms: 1_700_000_000_123,
        head: head.as_bytes(),
        tail: tail.as_bytes(),
    };
    bus.publish(envelope).await
}

fn expected(id: &str, seq: Seq, more: &str) -> Bytes {
    Bytes::from(format!(r#"{{"type":"message","id":"{id}","seq":{seq},"more":"{more}"}}"#))
}

/// Every case. `inbox_size` is the bus's `max_messages`.
pub(super) async fn run(bus: &Bus, heard: &Recorder, inbox_size: usize) {
    delivers_what_was_published(bus, heard).await;
    counts_up_by_one_under_concurrent_publishers(bus, heard).await;
    answers_a_repeat_with_the_first_receipt(bus, heard).await;
    keeps_repeats_of_different_senders_apart(bus).await;
    reads_what_is_after_a_position(bus).await;
    trims_the_oldest(bus, inbox_size).await;
    reads_an_empty_inbox(bus).await;
    counts_subscriptions(bus, heard).await;
    signals_pass_and_are_not_kept(bus, heard).await;
    casts_to_whoever_listens_and_keeps_nothing(bus, heard).await;
    carries_large_payloads(bus, heard).await;
    takes_users_with_odd_names(bus, heard).await;
    refuses_a_seat_over_the_limit(bus).await;
    gives_the_oldest_seat_to_a_new_one(bus, heard).await;
    never_grants_more_seats_than_the_limit(bus).await;
    knows_who_is_online_and_since_when_not(bus).await;
    tells_watchers_of_changes(bus, heard).await;
    counts_events_up_to_the_rate(bus).await;
    never_grants_more_than_the_burst(bus).await;
}

async fn delivers_what_was_published(bus: &Bus, heard: &Recorder) {
    let subscription = bus.subscribe("first");
    subscription.confirmed().await.unwrap();
    let receipt = send(bus, "first", "c1").await;
    assert_eq!(receipt, Receipt { seq: 1, at_ms: 1_700_000_000_123, duplicate: false });
    heard.until("the message came", |heard| !heard.messages("first").is_empty()).await;
    assert_eq!(heard.messages("first"), [(1, expected("c1", 1, ""))]);
}

async fn counts_up_by_one_under_concurrent_publishers(bus: &Bus, heard: &Recorder) {
    const EACH: usize = 100;
    const PUBLISHERS: usize = 8;
    let subscription = bus.subscribe("busy");
    subscription.confirmed().await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let bus = bus.clone();
        tasks.spawn(async move {
            for number in 0..EACH {
                send(&bus, "busy", &format!("{publisher}-{number}")).await;
            }
        });
    }
    tasks.join_all().await;
    heard.until("all came", |heard| heard.messages("busy").len() == EACH * PUBLISHERS).await;
    assert_eq!(heard.seqs("busy"), (1..=(EACH * PUBLISHERS) as Seq).collect::<Vec<_>>());
}

async fn answers_a_repeat_with_the_first_receipt(bus: &Bus, heard: &Recorder) {
    let subscription = bus.subscribe("twice");
    subscription.confirmed().await.unwrap();
    let first = send(bus, "twice", "same").await;
    send(bus, "twice", "other").await;
    let later = Envelope { to: "twice", from: "alice", id: "same", at_ms: 9, head: b"", tail: b"" };
    let again = bus.publish(later).await.unwrap();
    assert_eq!(again, Receipt { duplicate: true, ..first });
    send(bus, "twice", "last").await;
    heard.until("the last came", |heard| heard.messages("twice").len() >= 3).await;
    assert_eq!(heard.seqs("twice"), [1, 2, 3]);
    assert_eq!(bus.read("twice", 0).await.unwrap().messages.len(), 3);
}

async fn keeps_repeats_of_different_senders_apart(bus: &Bus) {
    assert!(!send_of(bus, "ann", "apart", "x", "").await.duplicate);
    assert!(!send_of(bus, "bea", "apart", "x", "").await.duplicate);
    assert!(!send_of(bus, "ann", "apart too", "x", "").await.duplicate);
    assert!(send_of(bus, "ann", "apart", "x", "").await.duplicate);
}

async fn reads_what_is_after_a_position(bus: &Bus) {
    for id in ["1", "2", "3"] {
        send(bus, "reader", id).await;
    }
    let all = bus.read("reader", 0).await.unwrap();
    assert_eq!(all.top, 3);
    let messages: Vec<_> = (1..=3).map(|seq| (seq, expected(&seq.to_string(), seq, ""))).collect();
    assert_eq!(all.messages, messages);
    assert_eq!(bus.read("reader", 1).await.unwrap().messages, messages[1..]);
    for after in [3, 4, Seq::MAX] {
        let nothing = bus.read("reader", after).await.unwrap();
        assert_eq!((nothing.top, nothing.messages), (3, vec![]));
        assert_eq!(nothing.epoch, all.epoch);
    }
}

async fn trims_the_oldest(bus: &Bus, inbox_size: usize) {
    let sent = inbox_size as Seq + 3;
    for number in 1..=sent {
        send(bus, "full", &number.to_string()).await;
    }
    let all = bus.read("full", 1).await.unwrap();
    assert_eq!(all.top, sent);
    assert_eq!(all.messages.len(), inbox_size);
    assert_eq!(all.messages.first().unwrap(), &(4, expected("4", 4, "")));
    assert_eq!(all.messages.last().unwrap().0, sent);
}

async fn reads_an_empty_inbox(bus: &Bus) {
    let empty = bus.read("nobody", 0).await.unwrap();
    assert_eq!((empty.top, empty.messages), (0, vec![]));
    assert!(!empty.epoch.is_empty());
    send(bus, "nobody", "1").await;
    let then = bus.read("nobody", 0).await.unwrap();
    assert_eq!((then.epoch, then.top, then.messages.len()), (empty.epoch, 1, 1));
}

async fn counts_subscriptions(bus: &Bus, heard: &Recorder) {
    // What a second user hears proves that the first one's would have come by now.
    let witness = bus.subscribe("witness");
    let (one, two) = (bus.subscribe("shared"), bus.subscribe("shared"));
    for subscription in [&witness, &one, &two] {
        subscription.confirmed().await.unwrap();
    }
    drop(one);
    send(bus, "shared", "1").await;
    heard.until("one is enough", |heard| heard.seqs("shared") == [1]).await;
    drop(two);
    // Once another user's wish is confirmed, so is this one's end: wishes keep their order.
    bus.subscribe("other").confirmed().await.unwrap();
    send(bus, "shared", "2").await;
    send(bus, "witness", "1").await;
    heard.until("the witness heard", |heard| heard.seqs("witness") == [1]).await;
    assert_eq!(heard.seqs("shared"), [1]);
    let back = bus.subscribe("shared");
    back.confirmed().await.unwrap();
    send(bus, "shared", "3").await;
    heard.until("it is heard again", |heard| heard.seqs("shared") == [1, 3]).await;
    // A quick change of mind ends as the last wish says.
    for _ in 0..50 {
        drop(bus.subscribe("fickle"));
    }
    let stays = bus.subscribe("fickle");
    stays.confirmed().await.unwrap();
    send(bus, "fickle", "1").await;
    heard.until("the last wish counts", |heard| heard.seqs("fickle") == [1]).await;
}

async fn signals_pass_and_are_not_kept(bus: &Bus, heard: &Recorder) {
    let subscription = bus.subscribe("typist");
    subscription.confirmed().await.unwrap();
    let notice = Bytes::from_static(br#"{"type":"typing","from":"alice"}"#);
    bus.signal("typist", notice.clone()).await.unwrap();
    bus.signal("nobody listens", notice.clone()).await.unwrap();
    heard.until("the signal came", |heard| !heard.signals("typist").is_empty()).await;
    assert_eq!(heard.signals("typist"), [notice]);
    let inbox = bus.read("typist", 0).await.unwrap();
    assert_eq!((inbox.top, inbox.messages.len()), (0, 0));
    assert!(heard.messages("typist").is_empty());
}

async fn casts_to_whoever_listens_and_keeps_nothing(bus: &Bus, heard: &Recorder) {
    let subscription = bus.subscribe("passer-by");
    subscription.confirmed().await.unwrap();
    let cast = async |id: &str| {
        let begins = format!(r#"{{"type":"message","id":"{id}","seq":"#);
        let tail = br#","more":""}"#;
        let to = "passer-by";
        let envelope = Envelope { to, from: "alice", id, at_ms: 1, head: begins.as_bytes(), tail };
        bus.cast(envelope).await.unwrap();
    };
    cast("not wanted").await;
    // What follows it shows that it did not come.
    send(bus, "passer-by", "stored").await;
    heard.until("the stored one came", |heard| heard.last("passer-by").is_some()).await;
    heard.take_unstored(true);
    cast("twice").await;
    cast("twice").await;
    heard.until("both came", |heard| heard.messages("passer-by").len() == 3).await;
    heard.take_unstored(false);
    let came = [
        (1, expected("stored", 1, "")),
        (0, expected("twice", 0, "")),
        (0, expected("twice", 0, "")),
    ];
    assert_eq!(heard.messages("passer-by"), came);
    let inbox = bus.read("passer-by", 0).await.unwrap();
    assert_eq!((inbox.top, inbox.messages.len()), (1, 1));
}

async fn carries_large_payloads(bus: &Bus, heard: &Recorder) {
    let subscription = bus.subscribe("large");
    subscription.confirmed().await.unwrap();
    let mut text = String::new();
    for number in 0..50_000 {
        write!(text, "{number},").unwrap();
    }
    send_of(bus, "alice", "large", "1", &text).await;
    send(bus, "large", "2").await;
    heard.until("both came", |heard| heard.messages("large").len() == 2).await;
    let both = [(1, expected("1", 1, &text)), (2, expected("2", 2, ""))];
    assert_eq!(heard.messages("large"), both);
    assert_eq!(bus.read("large", 0).await.unwrap().messages, both);
}

async fn takes_users_with_odd_names(bus: &Bus, heard: &Recorder) {
    for user in ["a:b", "*", "[a-z]", "\"", "\\", "chat:x", "%7B", "it's", "a:b:c"] {
        let subscription = bus.subscribe(user);
        subscription.confirmed().await.unwrap();
        send_of(bus, user, user, "1", "").await;
        bus.signal(user, Bytes::from_static(b"{}")).await.unwrap();
        heard
            .until("both came", |heard| heard.seqs(user) == [1] && heard.signals(user).len() == 1)
            .await;
        assert_eq!(bus.read(user, 0).await.unwrap().messages, [(1, expected("1", 1, ""))]);
    }
}

pub(super) fn limit(most: usize, over: OverLimit) -> SeatLimit {
    SeatLimit { most, over }
}

/// A seat that must be granted.
pub(super) async fn seat(bus: &Bus, user: &str, limit: SeatLimit) -> SeatHold {
    let seat = bus.take_seat(user, limit);
    seat.granted().await.unwrap();
    seat
}

/// Asks until `user` stands as wanted: seats are given back behind their holders.
pub(super) async fn stands(bus: &Bus, user: &str, online: bool) -> Presence {
    let asking = async {
        loop {
            let presence = bus.presence(user).await.unwrap();
            if presence.online == online {
                return presence;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("the presence does not change")
}

async fn refuses_a_seat_over_the_limit(bus: &Bus) {
    let two = limit(2, OverLimit::Refuse);
    let (first, second) = (seat(bus, "capped", two).await, seat(bus, "capped", two).await);
    assert_ne!(first.number(), second.number());
    let third = bus.take_seat("capped", two);
    assert_eq!(third.granted().await, Err(SeatError::Full));
    // The refused one gives nothing back.
    drop(third);
    assert_eq!(bus.take_seat("capped", two).granted().await, Err(SeatError::Full));
    let other = seat(bus, "another", two).await;
    drop((first, other));
    let again = async {
        while bus.take_seat("capped", two).granted().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("the seat is not given back");
    drop(second);
}

async fn gives_the_oldest_seat_to_a_new_one(bus: &Bus, heard: &Recorder) {
    let two = limit(2, OverLimit::CloseOldest);
    let subscription = bus.subscribe("pushed");
    subscription.confirmed().await.unwrap();
    let mut seats = Vec::new();
    for _ in 0..4 {
        seats.push(seat(bus, "pushed", two).await);
    }
    let oldest = [seats[0].number(), seats[1].number()];
    heard.until("both are told", |heard| heard.evicted("pushed").len() == 2).await;
    assert_eq!(heard.evicted("pushed"), oldest);
    // The seat of one that is told later than it is gone takes nobody's place.
    drop(seats.drain(..2));
    assert_eq!(heard.evicted("pushed"), oldest);
    assert!(bus.presence("pushed").await.unwrap().online);
    let third = bus.take_seat("pushed", limit(2, OverLimit::Refuse));
    assert_eq!(third.granted().await, Err(SeatError::Full));
}

async fn never_grants_more_seats_than_the_limit(bus: &Bus) {
    let five = limit(5, OverLimit::Refuse);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let bus = bus.clone();
        tasks.spawn(async move {
            let seat = bus.take_seat("rushed", five);
            seat.granted().await.map(|()| seat)
        });
    }
    let granted = tasks.join_all().await.into_iter().filter_map(Result::ok).count();
    assert_eq!(granted, 5);
}

async fn knows_who_is_online_and_since_when_not(bus: &Bus) {
    let many = limit(9, OverLimit::Refuse);
    let nobody = Presence { online: false, last_seen_ms: None };
    assert_eq!(bus.presence("seen").await.unwrap(), nobody);
    let (one, two) = (seat(bus, "seen", many).await, seat(bus, "seen", many).await);
    let online = bus.presence("seen").await.unwrap();
    assert!(online.online);
    drop(one);
    let still = stands(bus, "seen", true).await;
    assert!(still.last_seen_ms >= online.last_seen_ms);
    drop(two);
    let offline = stands(bus, "seen", false).await;
    assert!(offline.last_seen_ms >= still.last_seen_ms, "{offline:?} after {still:?}");
    assert_eq!(bus.presence("seen").await.unwrap(), offline);
}

async fn tells_watchers_of_changes(bus: &Bus, heard: &Recorder) {
    let many = limit(9, OverLimit::Refuse);
    let watch = bus.watch("watched");
    watch.confirmed().await.unwrap();
    let before = heard.changes("watched");
    let one = seat(bus, "watched", many).await;
    heard.until("he came", |heard| heard.changes("watched") > before).await;
    let came = heard.changes("watched");
    drop(one);
    heard.until("he left", |heard| heard.changes("watched") > came).await;
    assert!(!bus.presence("watched").await.unwrap().online);
    let left = heard.changes("watched");
    drop(watch);
    // Once another's watch is confirmed, so is this one's end.
    let other = bus.watch("other watched");
    other.confirmed().await.unwrap();
    let unseen = seat(bus, "watched", many).await;
    let seen = seat(bus, "other watched", many).await;
    heard.until("the other came", |heard| heard.changes("other watched") > 0).await;
    assert_eq!(heard.changes("watched"), left);
    drop((unseen, seen));
}

fn hourly(burst: u32) -> Rate {
    Rate::new(Duration::from_hours(1), NonZeroU32::new(burst).unwrap())
}

async fn counts_events_up_to_the_rate(bus: &Bus) {
    let rate = hourly(2);
    let take = async |key| bus.take(Draw { limit: "counted", key, rate: &rate }).await.unwrap();
    let hours = |count: u64| Duration::from_hours(count);
    // A little of the time has passed, and the rest is what bookings run ahead.
    let almost = |ahead: Duration, hours: Duration| ahead <= hours && ahead + hours / 60 > hours;
    let first = take("10.0.0.1").await;
    assert!(first.granted && almost(first.ahead, hours(1)), "{first:?}");
    let second = take("10.0.0.1").await;
    assert!(second.granted && almost(second.ahead, hours(2)), "{second:?}");
    for _ in 0..3 {
        let third = take("10.0.0.1").await;
        assert!(!third.granted && almost(third.ahead, hours(2)), "{third:?}");
    }
    assert!(take("2001:db8::/64").await.granted);
    // What was booked at another rate locks nobody out for longer than this one.
    let quick = Rate::new(Duration::from_millis(1), NonZeroU32::MIN);
    let ahead =
        bus.take(Draw { limit: "counted", key: "10.0.0.1", rate: &quick }).await.unwrap().ahead;
    assert!(ahead <= Duration::from_millis(2), "{ahead:?}");
}

async fn never_grants_more_than_the_burst(bus: &Bus) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let bus = bus.clone();
        tasks.spawn(async move {
            bus.take(Draw { limit: "rushed", key: "k", rate: &hourly(7) }).await.unwrap().granted
        });
    }
    let granted = tasks.join_all().await.into_iter().filter(|granted| *granted).count();
    assert_eq!(granted, 7);
}
