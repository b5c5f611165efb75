//! The line under every order of coming, ending and giving up, and between real threads.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Context, Poll, Wake, Waker};

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { length: 4, timeout: Duration::from_secs(1) };

/// Room for some, as the backends of a group have it.
#[derive(Default)]
struct Room(AtomicUsize);

impl Room {
    fn take(&self) -> Option<()> {
        let take = |free: usize| free.checked_sub(1);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).ok().map(|_| ())
    }

    fn give(&self, queue: &Queue) {
        self.0.fetch_add(1, Ordering::SeqCst);
        queue.ring();
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One that waits, polled only when it was woken, as a runtime would.
struct Waiter<'a> {
    name: usize,
    wait: Pin<Box<dyn Future<Output = Result<(), Overloaded>> + 'a>>,
    woken: Arc<Woken>,
}

impl<'a> Waiter<'a> {
    fn new(name: usize, queue: &'a Queue, room: &'a Room) -> Self {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        Self { name, wait: Box::pin(queue.wait(LIMITS, || room.take())), woken }
    }

    fn run(&mut self) -> Option<Result<(), Overloaded>> {
        if !self.woken.0.swap(false, Ordering::SeqCst) {
            return None;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        match self.wait.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Come,
    End,
    /// The waiter at this place, counted from the first, goes away.
    Leave(usize),
    /// The waiter at this place runs, if it was woken.
    Run(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Come),
        2 => Just(Step::End),
        1 => (0_usize..4).prop_map(Step::Leave),
        4 => (0_usize..4).prop_map(Step::Run),
    ];
    prop::collection::vec(step, 1..120)
}

/// Runs whoever was woken until nobody is; in which order they were served.
fn settle(line: &mut VecDeque<Waiter<'_>>) -> Vec<usize> {
    let mut served = Vec::new();
    loop {
        let before = served.len();
        let mut moved = false;
        line.retain_mut(|waiter| {
            moved |= waiter.woken.0.load(Ordering::SeqCst);
            match waiter.run() {
                Some(done) => {
                    done.unwrap();
                    served.push(waiter.name);
                    false
                }
                None => true,
            }
        });
        if served.len() == before && !moved {
            return served;
        }
    }
}

/// However comings, endings, leavings and runs interleave: who comes first is served first, nobody waits while there is
/// room, and the line is as long as it says.
fn check(steps: &[Step]) {
    let (queue, room) = (Queue::default(), Room::default());
    let mut line: VecDeque<Waiter<'_>> = VecDeque::new();
    let (mut names, mut last_served) = (0, None);
    let mut served = |name: usize| {
        assert!(last_served.is_none_or(|last| last < name), "{name} after {last_served:?}");
        last_served = Some(name);
    };
    for step in steps {
        match *step {
            Step::Come => {
                let mut waiter = Waiter::new(names, &queue, &room);
                let full = queue.waiting() >= LIMITS.length;
                match waiter.run() {
                    Some(Err(Overloaded::Full)) => assert!(full),
                    Some(Ok(())) => served(names),
                    Some(other) => panic!("{other:?}"),
                    None => line.push_back(waiter),
                }
                assert!(!full || line.len() == LIMITS.length);
                names += 1;
            }
            Step::End => room.give(&queue),
            Step::Leave(place) => drop(line.remove(place)),
            Step::Run(place) => {
                if let Some(done) = line.get_mut(place).and_then(Waiter::run) {
                    done.unwrap();
                    served(line.remove(place).unwrap().name);
                }
            }
        }
        assert_eq!(queue.waiting(), line.len());
    }
    settle(&mut line).into_iter().for_each(&mut served);
    let free = room.0.load(Ordering::SeqCst);
    assert!(line.is_empty() || free == 0, "{} wait while there is room for {free}", line.len());
    // And the bell still rings for those that are left.
    for _ in 0..line.len() {
        room.give(&queue);
        assert_eq!(settle(&mut line).len(), 1);
    }
    assert_eq!((queue.waiting(), room.0.load(Ordering::SeqCst)), (0, free));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_order_of_events_loses_a_wake_up(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        check(&steps);
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_is_bounded_in_length_and_time() {
    let (queue, room) = (Queue::default(), Room::default());
    let line = (0..=LIMITS.length).map(|_| queue.wait(LIMITS, || room.take()));
    let started = Instant::now();
    let ends = futures_util::future::join_all(line).await;
    assert_eq!(ends.iter().filter(|end| **end == Err(Overloaded::Full)).count(), 1);
    assert_eq!(ends.iter().filter(|end| **end == Err(Overloaded::TimedOut)).count(), LIMITS.length);
    assert_eq!(started.elapsed(), LIMITS.timeout);
    assert_eq!(queue.waiting(), 0);
}

/// Threads that take and give as fast as they can: nobody hangs, and nothing is left over.
#[test]
fn threads_lose_no_wake_up() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 2_000;
    let shared = Arc::new((Queue::default(), Room(AtomicUsize::new(1)), AtomicU64::new(0)));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                let (queue, room, done) = &*shared;
                let limits = Limits { length: 64, timeout: Duration::from_secs(20) };
                for _ in 0..ROUNDS {
                    runtime.block_on(queue.wait(limits, || room.take())).unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                    room.give(queue);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let (queue, room, done) = &*shared;
    assert_eq!(done.load(Ordering::Relaxed), THREADS * ROUNDS);
    assert_eq!((queue.waiting(), room.0.load(Ordering::SeqCst)), (0, 1));
}
