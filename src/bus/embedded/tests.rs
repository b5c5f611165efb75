//! The embedded bus: the contract, what it forgets, and that it holds its bound.

use super::*;
use crate::bus::Bus;
use crate::bus::contract::{self, Recorder, send};

fn bus(inbox: &InboxSettings) -> (Bus, Arc<Recorder>) {
    let bus = Bus::embedded(inbox, &mut Registry::default());
    let recorder = Arc::new(Recorder::default());
    bus.attach(Arc::clone(&recorder) as Arc<dyn Deliver>);
    (bus, recorder)
}

#[tokio::test]
async fn keeps_the_contract() {
    let inbox = InboxSettings { max_messages: 10.try_into().unwrap(), ..Default::default() };
    let (bus, recorder) = bus(&inbox);
    contract::run(&bus, &recorder, 10).await;
    assert_eq!(recorder.gaps(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_after_the_window_is_a_new_message() {
    let (bus, _) = bus(&InboxSettings::default());
    send(&bus, "bob", "1").await;
    tokio::time::advance(Duration::from_secs(599)).await;
    assert!(send(&bus, "bob", "1").await.duplicate);
    tokio::time::advance(Duration::from_secs(2)).await;
    let late = send(&bus, "bob", "1").await;
    assert_eq!((late.seq, late.duplicate), (2, false));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_forgotten_and_its_positions_are_void() {
    let (bus, _) = bus(&InboxSettings::default());
    let Bus::Embedded(embedded) = &bus else { panic!("an embedded bus was asked for") };
    send(&bus, "bob", "1").await;
    let before = bus.read("bob", 0).await.unwrap();
    let listens = bus.subscribe("carol");
    send(&bus, "carol", "1").await;

    let stop = CancellationToken::new();
    let life = async {
        tokio::time::sleep(Duration::from_hours(25)).await;
        stop.cancel();
    };
    tokio::join!(bus.run(stop.clone()), life);

    assert!(embedded.shared.existing("bob").is_none(), "an idle, empty inbox stays");
    let after = bus.read("bob", 0).await.unwrap();
    assert_eq!((after.top, after.messages.len()), (0, 0));
    assert_ne!(after.epoch, before.epoch, "positions would be given out twice");
    // Somebody who is listened for keeps the counter, though not the messages.
    let carol = bus.read("carol", 0).await.unwrap();
    assert_eq!((carol.top, carol.messages.len()), (1, 0));
    drop(listens);
}

#[tokio::test]
async fn the_epoch_stays_while_the_counter_does() {
    let (bus, _) = bus(&InboxSettings::default());
    let Bus::Embedded(embedded) = &bus else { panic!("an embedded bus was asked for") };
    let never_used = bus.read("bob", 0).await.unwrap();
    for shard in &embedded.shared.shards {
        embedded.shared.forget(shard, Inbox::is_empty);
    }
    assert!(embedded.shared.existing("bob").is_none());
    assert_eq!(bus.read("bob", 0).await.unwrap().epoch, never_used.epoch);
}

const MIB: usize = 1024 * 1024;

/// A bus with room for so many bytes.
fn narrow(bytes: usize) -> (Bus, Arc<Recorder>, EmbeddedBus) {
    let inbox = InboxSettings { max_total_bytes: bytes.try_into().unwrap(), ..Default::default() };
    let (bus, recorder) = bus(&inbox);
    let Bus::Embedded(embedded) = bus.clone() else { panic!("an embedded bus was asked for") };
    (bus, recorder, embedded)
}

impl EmbeddedBus {
    /// Message `id` of alice's, with a text of so many bytes.
    fn send(&self, to: &str, id: usize, bytes: usize) -> Result<Receipt, BusError> {
        let (id, tail) = (id.to_string(), vec![b'x'; bytes]);
        self.publish(Envelope { to, from: "alice", id: &id, at_ms: 0, head: b"", tail: &tail })
    }

    /// What is counted, after it was held against what the inboxes hold.
    fn counted(&self) -> usize {
        let mut sum = 0;
        for shard in &self.shared.shards {
            for (user, inbox) in &*lock(shard) {
                let inbox = lock(inbox);
                let messages = inbox.messages.iter().map(|message| of_message(message.len()));
                let seen = inbox.seen.keys().map(|key| of_repeat(key));
                let weight = of_user(user) + messages.sum::<usize>() + seen.sum::<usize>();
                assert_eq!(inbox.weight, weight, "the inbox of {user}");
                sum += weight;
            }
        }
        assert_eq!(self.shared.room.used(), sum);
        sum
    }

    fn has(&self, user: &str) -> bool {
        self.shared.existing(user).is_some()
    }
}

#[tokio::test(start_paused = true)]
async fn made_up_recipients_fill_no_more_than_the_bound() {
    let (_, _, bus) = narrow(MIB);
    let mut passes = 0;
    for number in 0..1_000 {
        let before = bus.shared.room.used();
        bus.send(&format!("nobody {number}"), 1, 16_000).unwrap();
        let after = bus.counted();
        assert!(after <= MIB, "{after} bytes after {number}");
        if after < before {
            passes += 1;
            // All were written in one moment: no more of them go than need be.
            assert!((MIB / 2..=MIB * 3 / 4 + 20_000).contains(&after), "{after} bytes are left");
        }
    }
    // 62 fit, so that a pass frees 16 of them.
    assert!((50..70).contains(&passes), "{passes} passes over all users");
    let left = (0..1_000).filter(|number| bus.has(&format!("nobody {number}"))).count();
    assert_eq!(bus.shared.metrics.forgotten.get() + left as u64, 1_000);
    // Where names are long and texts are short, too.
    for number in 0..5_000 {
        bus.send(&format!("{number:0128}"), number, 0).unwrap();
    }
    assert!(bus.counted() <= MIB);
    // And where it is one recipient, whose messages alone are too many.
    for number in 0..1_000 {
        bus.send("nobody", number, 16_000).unwrap();
        assert!(bus.shared.room.used() <= MIB);
    }
    bus.counted();
}

#[tokio::test(start_paused = true)]
async fn the_least_recently_written_are_forgotten_first_and_their_positions_are_void() {
    let (_, _, bus) = narrow(MIB);
    let user = |number: usize| format!("user {number}");
    for number in 0..60 {
        bus.send(&user(number), 1, 16_000).unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    // The first one is written to again, and so is not the first to go.
    bus.send(&user(0), 2, 10).unwrap();
    let (kept, lost) = (bus.read(&user(0), 0), bus.read(&user(1), 0));
    tokio::time::advance(Duration::from_millis(1)).await;
    for number in 60..70 {
        bus.send(&user(number), 1, 16_000).unwrap();
    }
    let gone: Vec<_> = (0..70).filter(|number| !bus.has(&user(*number))).collect();
    assert!(gone.len() > 10, "{gone:?}");
    assert_eq!(gone, (1..=gone.len()).collect::<Vec<_>>());
    assert_eq!(bus.read(&user(0), 0), kept);
    // A reader who comes back with a position of the old epoch is not taken for resumed.
    assert_eq!(bus.send(&user(1), 7, 10).unwrap().seq, 1);
    let anew = bus.read(&user(1), 0);
    assert_eq!((anew.top, anew.messages.len()), (1, 1));
    assert_ne!(anew.epoch, lost.epoch, "positions would be given out twice");
}

#[tokio::test]
async fn a_connected_reader_loses_nothing() {
    let (bus, heard, embedded) = narrow(MIB);
    let subscription = bus.subscribe("bob");
    let before = bus.read("bob", 0).await.unwrap();
    for number in 0..500 {
        assert_eq!(embedded.send("bob", number, 100).unwrap().seq, number as Seq + 1);
        embedded.send(&format!("nobody {number}"), 1, 16_000).unwrap();
    }
    assert!(embedded.counted() <= MIB);
    assert!(embedded.shared.metrics.forgotten.get() > 0);
    let all: Vec<Seq> = (1..=500).collect();
    assert_eq!(heard.seqs("bob"), all);
    let after = bus.read("bob", 0).await.unwrap();
    assert_eq!(after.epoch, before.epoch);
    assert_eq!(after.messages.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), all);
    assert!(embedded.send("bob", 0, 100).unwrap().duplicate);
    drop(subscription);
}

#[tokio::test(start_paused = true)]
async fn where_connected_users_fill_it_sends_are_refused_until_one_leaves() {
    let (bus, heard, embedded) = narrow(MIB);
    let (ann, bea) = (bus.subscribe("ann"), bus.subscribe("bea"));
    let mut sent = 0;
    let refused = loop {
        sent += 1;
        embedded.send("nobody", sent, 10).unwrap();
        match embedded.send(if sent % 2 == 0 { "ann" } else { "bea" }, sent, 16_000) {
            Ok(_) => tokio::time::advance(Duration::from_secs(2)).await,
            Err(refused) => break refused,
        }
        assert!(sent < 100, "nothing is refused");
    };
    assert_eq!(refused, BusError::Unavailable(Arc::from(FULL)));
    assert!(!embedded.has("nobody"), "somebody who is not connected was kept");
    assert_eq!(embedded.shared.metrics.unavailable.get(), 1);
    assert!(embedded.counted() <= MIB);
    // What fits is taken, what is known is answered, and what was refused has used no position up.
    assert_eq!(embedded.send("ann", 1_000, 10).unwrap().seq, (sent as Seq - 1) / 2 + 1);
    assert!(embedded.send("ann", 2, 16_000).unwrap().duplicate);
    assert!(embedded.send("nobody else", 1, 16_000).is_err());
    assert!(!embedded.has("nobody else"), "a refused message left an inbox behind");
    drop(ann);
    // Not looked for at each message, so as not to look at every user each time.
    assert!(embedded.send("bea", 1_001, 16_000).is_err());
    tokio::time::advance(Duration::from_secs(1)).await;
    let last = embedded.send("bea", 1_001, 16_000).unwrap();
    assert!(!embedded.has("ann"));
    assert!(embedded.counted() < MIB * 3 / 4);
    assert_eq!(heard.seqs("bea"), (1..=last.seq).collect::<Vec<_>>());
    drop(bea);
}

#[tokio::test(start_paused = true)]
async fn what_expires_gives_its_room_back() {
    let (bus, _, embedded) = narrow(MIB);
    let listens = bus.subscribe("bob");
    for number in 0..20 {
        embedded.send("bob", number, 16_000).unwrap();
        embedded.send("carol", number, 16_000).unwrap();
    }
    let full = embedded.counted();
    let stop = CancellationToken::new();
    let life = async {
        tokio::time::sleep(Duration::from_mins(12)).await;
        assert!((full - 40 * of_repeat("alice 123")..full).contains(&embedded.counted()));
        tokio::time::sleep(Duration::from_hours(25)).await;
        stop.cancel();
    };
    tokio::join!(bus.run(stop.clone()), life);
    assert_eq!(embedded.counted(), of_user("bob"));
    drop(listens);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_bound_and_the_order_hold_while_many_write_and_come_and_go() {
    let (bus, heard, embedded) = narrow(8 * MIB);
    let listens: Vec<_> = (0..4).map(|number| bus.subscribe(&format!("reader {number}"))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4 {
        let (bus, embedded) = (bus.clone(), embedded.clone());
        tasks.spawn(async move {
            for number in 0..500 {
                let id = task * 1_000 + number;
                embedded.send(&format!("nobody {id}"), id, 8_000).unwrap();
                embedded.send(&format!("reader {}", number % 4), id, 50).unwrap();
                let guest = bus.subscribe(&format!("guest {}", number % 3));
                embedded.send(&format!("guest {}", number % 3), id, 500).unwrap();
                drop(guest);
                // Each of the others may have begun an inbox at the same moment.
                assert!(embedded.shared.room.used() <= 8 * MIB + 4 * of_user("nobody 1234"));
                tokio::task::yield_now().await;
            }
        });
    }
    tasks.join_all().await;
    embedded.counted();
    assert!(embedded.shared.metrics.forgotten.get() > 500);
    for number in 0..4 {
        assert_eq!(heard.seqs(&format!("reader {number}")), (1..=500).collect::<Vec<_>>());
    }
    drop(listens);
}
