//! The wanted set against a server that is played by the test.

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::observability::Registry;

fn wishes() -> Arc<Wishes> {
    Wishes::new(Duration::from_secs(3), Metrics::new(&mut Registry::default()))
}

/// Takes everything that is queued and answers it.
fn settle(wishes: &Wishes) {
    loop {
        let batch = wishes.take();
        if batch == Batch::default() {
            return;
        }
        for user in batch.unsubscribe.iter().chain(&batch.subscribe) {
            wishes.answered(user);
        }
    }
}

fn connected() -> Arc<Wishes> {
    let wishes = wishes();
    wishes.restore();
    settle(&wishes);
    assert!(wishes.restored());
    wishes
}

#[tokio::test]
async fn a_wish_is_confirmed_by_the_servers_answer() {
    let wishes = connected();
    let wish = wishes.wish("bob");
    let mut confirmed = Box::pin(wish.confirmed());
    assert!(confirmed.as_mut().now_or_never().is_none());
    let batch = wishes.take();
    assert_eq!(batch.subscribe, [Arc::from("bob")]);
    assert!(confirmed.as_mut().now_or_never().is_none());
    wishes.answered("bob");
    assert_eq!(confirmed.await, Ok(()));
    assert!(wishes.take_owed().is_nothing());
}

#[tokio::test]
async fn while_away_nothing_is_confirmed_and_a_gap_is_owed_later() {
    let wishes = wishes();
    let wish = wishes.wish("bob");
    assert!(wish.confirmed().now_or_never().unwrap().is_err());
    assert_eq!(wishes.restore(), 1);
    assert!(!wishes.restored(), "nothing is written yet");
    settle(&wishes);
    assert!(wishes.restored());
    assert!(!wishes.restored(), "it is said once");
    assert!(!wishes.take_owed().is_nothing());
    assert_eq!(wish.confirmed().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_is_owed_a_gap() {
    let wishes = connected();
    let wish = wishes.wish("bob");
    assert!(wish.confirmed().await.is_err());
    assert!(wishes.take_owed().is_nothing());
    settle(&wishes);
    assert!(!wishes.take_owed().is_nothing());
}

#[tokio::test]
async fn a_loss_ends_the_waiting_and_queues_everybody_again() {
    let wishes = connected();
    let (bob, carol) = (wishes.wish("bob"), wishes.wish("carol"));
    settle(&wishes);
    let gone = wishes.wish("gone");
    let waits = tokio::join!(gone.confirmed(), async { wishes.lose(&Arc::from("broken")) }).0;
    assert_eq!(waits, Err(BusError::Unavailable(Arc::from("broken"))));
    drop((gone, carol));
    assert_eq!(wishes.restore(), 1);
    let batch = wishes.take();
    assert_eq!((batch.subscribe, batch.unsubscribe), (vec![Arc::from("bob")], vec![]));
    wishes.answered("bob");
    assert!(wishes.restored());
    assert_eq!(bob.confirmed().await, Ok(()));
}

#[test]
fn a_storm_goes_out_in_batches() {
    let wishes = connected();
    let all: Vec<_> = (0..1_000).map(|user| wishes.wish(&user.to_string())).collect();
    let mut sizes = Vec::new();
    while wishes.changed().now_or_never().is_some() {
        sizes.push(wishes.take().subscribe.len());
    }
    assert_eq!(sizes, [256, 256, 256, 232]);
    assert!(wishes.has_room());
    let more: Vec<_> = (1_000..1_024).map(|user| wishes.wish(&user.to_string())).collect();
    wishes.take();
    assert!(!wishes.has_room(), "more than the window is unanswered");
    wishes.answered("0");
    assert!(wishes.has_room());
    drop((all, more));
}

#[test]
fn nothing_stays_of_those_who_left() {
    let wishes = connected();
    drop(wishes.wish("never sent"));
    settle(&wishes);
    let wish = wishes.wish("sent");
    settle(&wishes);
    drop(wish);
    settle(&wishes);
    assert!(wishes.lock().users.is_empty());
    assert_eq!(wishes.metrics.wanted.get(), 0);
}

#[test]
fn nothing_stays_of_those_who_came_and_left_while_redis_was_away() {
    let wishes = connected();
    let stays = wishes.wish("stays");
    let leaves = wishes.wish("leaves");
    settle(&wishes);
    wishes.lose(&Arc::from("broken"));
    drop(leaves);
    for user in 0..1_000 {
        drop(wishes.wish(&user.to_string()));
        drop(wishes.wish("again and again"));
    }
    let wanted = wishes.lock();
    assert_eq!((wanted.users.len(), wanted.queue.len()), (1, 0));
    drop(wanted);
    assert_eq!(wishes.restore(), 1);
    assert_eq!(wishes.take().subscribe, [Arc::from("stays")]);
    drop(stays);
}

proptest! {
    /// Users come and go while the server answers late: in the end it listens for exactly those that stay.
    #[test]
    fn the_server_ends_with_what_is_wanted(steps in proptest::collection::vec(0_u8..8, 0..200)) {
        let wishes = connected();
        let names = ["a", "b"];
        let mut held: [Vec<Wish>; 2] = Default::default();
        let mut server = std::collections::HashSet::new();
        let mut answers = VecDeque::new();
        let serve = |server: &mut std::collections::HashSet<Arc<str>>, answers: &mut VecDeque<Arc<str>>| {
            let batch = wishes.take();
            for user in batch.unsubscribe {
                prop_assert!(server.remove(&user), "unsubscribed twice");
                answers.push_back(user);
            }
            for user in batch.subscribe {
                prop_assert!(server.insert(Arc::clone(&user)), "subscribed twice");
                answers.push_back(user);
            }
            Ok(())
        };
        for step in steps {
            match step {
                0 | 1 => held[usize::from(step)].push(wishes.wish(names[usize::from(step)])),
                2 | 3 => drop(held[usize::from(step - 2)].pop()),
                4 | 5 => serve(&mut server, &mut answers)?,
                _ => {
                    if let Some(user) = answers.pop_front() {
                        wishes.answered(&user);
                    }
                }
            }
        }
        serve(&mut server, &mut answers)?;
        for user in answers {
            wishes.answered(&user);
        }
        for (name, held) in names.iter().zip(&held) {
            prop_assert_eq!(server.contains(*name), !held.is_empty());
            for wish in held {
                prop_assert_eq!(wish.confirmed().now_or_never(), Some(Ok(())));
            }
        }
        prop_assert_eq!(wishes.lock().users.len(), held.iter().filter(|held| !held.is_empty()).count());
    }
}

/// Answers a batch as a Cluster's server does that serves only those who `serves` holds for.
fn answer(wishes: &Wishes, batch: &Batch, serves: impl Fn(&str) -> bool) -> bool {
    for name in batch.unsubscribe.iter().filter(|name| serves(name)) {
        wishes.heard(name, false);
    }
    for name in batch.subscribe.iter().filter(|name| serves(name)) {
        wishes.heard(name, true);
    }
    wishes.settled(batch)
}

#[tokio::test]
async fn in_a_cluster_who_is_refused_waits_and_is_tried_again() {
    let wishes = connected();
    let (bob, carol) = (wishes.wish("bob"), wishes.wish("carol"));
    let mut confirmed = Box::pin(bob.confirmed());
    assert!(confirmed.as_mut().now_or_never().is_none());
    assert!(answer(&wishes, &wishes.take(), |name| name == "carol"), "bob was refused");
    assert_eq!(carol.confirmed().await, Ok(()));
    assert!(confirmed.as_mut().now_or_never().is_none());
    assert_eq!(wishes.take(), Batch::default(), "he is tried again at once, and again");
    wishes.retry();
    let batch = wishes.take();
    assert_eq!(batch.subscribe, [Arc::from("bob")]);
    assert!(!answer(&wishes, &batch, |_| true));
    assert_eq!(confirmed.await, Ok(()));
    assert_eq!(wishes.take_owed().of, [Arc::from("bob")], "he came late");
}

#[tokio::test]
async fn in_a_cluster_a_subscription_that_ends_unasked_is_noticed() {
    let wishes = connected();
    let bob = wishes.wish("bob");
    assert!(!answer(&wishes, &wishes.take(), |_| true));
    assert!(wishes.heard("bob", false), "nobody asked for that");
    assert!(!wishes.heard("bob", false), "it is no news");
    wishes.retry();
    assert!(!answer(&wishes, &wishes.take(), |_| true));
    assert_eq!(wishes.take_owed().of, [Arc::from("bob")]);

    // His end is refused, since his slot is elsewhere by now: nothing is left of him.
    drop(bob);
    let batch = wishes.take();
    assert_eq!(batch.unsubscribe, [Arc::from("bob")]);
    assert!(!wishes.heard("bob", false));
    assert!(!answer(&wishes, &batch, |_| false));
    wishes.retry();
    assert_eq!(wishes.take(), Batch::default());
    assert!(wishes.lock().users.is_empty());
}

#[tokio::test]
async fn in_a_cluster_who_came_from_another_server_is_told_of_a_gap() {
    let wishes = connected();
    let bob = wishes.wish_late("bob");
    assert!(wishes.is_moved("bob"), "what comes for him may be of another history");
    assert!(!answer(&wishes, &wishes.take(), |_| true));
    assert_eq!(wishes.take_owed().of, [Arc::from("bob")]);
    assert!(!wishes.is_moved("bob"));
    assert!(wishes.heard("bob", false) && wishes.is_moved("bob"));
    drop(bob);
    assert_eq!(wishes.lock().moved, 0);
}
