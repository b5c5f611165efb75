//! Spares the task of a backend's connection the turn that it would get for the last piece of an answer being taken.
//!
//! hyper wakes whoever fills a body whenever a piece was taken out of it, also when the last one was put in long ago and
//! nobody fills it any more. Of the turns of a short answer that is one in three. So the connection is driven with a waker
//! that can be hushed while a piece is taken; if there is more to come, the word is passed on afterwards.
//!
//! Invariant: only what is said within [`Hush::during`] is ever held back, and that runs on the connection's own thread, so
//! that no word of the system's can fall into it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

const OPEN: u8 = 0;
const HUSHED: u8 = 1;
/// Hushed, and something was said.
const HELD: u8 = 2;

/// The way of words to one connection's task.
#[derive(Debug, Default)]
pub(super) struct Hush {
    task: AtomicWaker,
    state: AtomicU8,
}

impl Wake for Hush {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let held = self.state.compare_exchange(HUSHED, HELD, Ordering::AcqRel, Ordering::Acquire);
        // Only the first word need be kept.
        if !matches!(held, Ok(_) | Err(HELD)) {
            self.task.wake();
        }
    }
}

impl Hush {
    /// Does `work`; what the connection is told meanwhile is passed on if `matters` says so of its outcome.
    pub(super) fn during<T>(
        &self,
        work: impl FnOnce() -> T,
        matters: impl FnOnce(&T) -> bool,
    ) -> T {
        self.state.store(HUSHED, Ordering::Release);
        let outcome = work();
        let held = self.state.swap(OPEN, Ordering::AcqRel) == HELD;
        if held && matters(&outcome) {
            self.task.wake();
        }
        outcome
    }
}

/// A connection that is woken through a [`Hush`].
#[derive(Debug)]
pub(super) struct Hushed<C> {
    connection: C,
    hush: Arc<Hush>,
    /// The same as a waker.
    waker: Waker,
}

impl<C> Hushed<C> {
    pub(super) fn new(connection: C, hush: &Arc<Hush>) -> Self {
        Self { connection, hush: Arc::clone(hush), waker: Waker::from(Arc::clone(hush)) }
    }
}

impl<C: Future + Unpin> Future for Hushed<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.get_mut();
        // First: whatever is said from here on is heard.
        this.hush.task.register(cx.waker());
        Pin::new(&mut this.connection).poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn what_matters_is_passed_on_and_nothing_else_is_held_back() {
        let hush = Arc::new(Hush::default());
        let waker = Waker::from(Arc::clone(&hush));
        let turns = std::cell::Cell::new(0);
        let counted = poll_fn(|_: &mut Context<'_>| {
            turns.set(turns.get() + 1);
            Poll::<()>::Pending
        });
        let mut hushed = std::pin::pin!(Hushed::new(counted, &hush));
        let mut turn = async || {
            tokio::select! {
                biased;
                () = hushed.as_mut() => {}
                () = tokio::task::yield_now() => {}
            }
            turns.take()
        };
        turn().await;
        let woken = Arc::new(Told::default());
        hush.task.register(&Waker::from(Arc::clone(&woken)));
        hush.during(|| waker.wake_by_ref(), |()| false);
        assert_eq!(woken.take(), 0, "it was of no matter");
        hush.during(
            || {
                waker.wake_by_ref();
                waker.wake_by_ref();
            },
            |()| true,
        );
        assert_eq!(woken.take(), 1);
        hush.task.register(&Waker::from(Arc::clone(&woken)));
        hush.during(|| (), |()| true);
        assert_eq!(woken.take(), 0, "nothing was said");
        waker.wake_by_ref();
        assert_eq!(woken.take(), 1, "outside of it everything is heard");
        assert!(turn().await > 0);
    }

    #[derive(Default)]
    struct Told(AtomicU8);

    impl Told {
        fn take(&self) -> u8 {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
