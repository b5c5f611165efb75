//! A timer that the exchanges of a connection share, one after the other.
//!
//! A timer for each wait would be entered into the runtime's wheel and taken out again with every request, and hardly one
//! ever rings. This one stays where it is while deadlines move on: it rings too early now and then, is looked at, and set
//! anew. Whoever waits for the sooner one of two deadlines brings it forward.
//!
//! Invariants: it never rings later than the deadline it was asked for last; who asks is woken by it, whatever task asked
//! before. Hence its timer is asked outside of the budget that the runtime gives a task for a turn: once that is used up a
//! timer only says "later" and takes no note of whom to wake, and as it is not asked again, it never would.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// The lock is for `Sync` alone: a connection and its exchanges run on one thread.
#[derive(Debug, Default)]
pub(super) struct Alarm(Mutex<Option<Set>>);

#[derive(Debug)]
struct Set {
    sleep: Pin<Box<Sleep>>,
    /// Whom it wakes.
    whom: Waker,
}

impl Alarm {
    /// Ready when `deadline` has passed; else the task is woken by then.
    pub(super) fn poll_past(&self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut alarm = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let set = alarm.get_or_insert_with(|| {
            let mut sleep = Box::pin(sleep_until(deadline));
            // Enters it into the wheel; should the time be over, that is seen below.
            let _entered = ask(sleep.as_mut(), cx);
            Set { sleep, whom: cx.waker().clone() }
        });
        let is_heard = set.whom.will_wake(cx.waker());
        if is_heard && !set.sleep.is_elapsed() && set.sleep.deadline() <= deadline {
            return Poll::Pending;
        }
        if set.sleep.is_elapsed() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            set.sleep.as_mut().reset(deadline);
        } else if set.sleep.deadline() > deadline {
            set.sleep.as_mut().reset(deadline);
        }
        if !is_heard {
            set.whom.clone_from(cx.waker());
        }
        if ask(set.sleep.as_mut(), cx).is_ready() {
            // Whoever else waits may have put off what was due.
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            // It has rung in this moment, for the sooner one.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// What `work` comes to; `None` when `deadline` has passed before.
    pub(super) async fn bound<F: Future>(
        &self,
        deadline: Instant,
        mut work: Pin<&mut F>,
    ) -> Option<F::Output> {
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll_past(deadline, cx).map(|()| None),
        })
        .await
    }
}

/// See the header of this file.
fn ask(sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    Pin::new(&mut unconstrained(sleep)).poll(cx)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    async fn bound(alarm: &Alarm, deadline: Instant) {
        let done = alarm.bound(deadline, pin!(pending::<()>())).await;
        assert_eq!(done, None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_each_deadline_whatever_came_before() {
        let (alarm, start) = (Alarm::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in [1, 2, 10, 11] {
            bound(&alarm, at(seconds)).await;
            assert_eq!(start.elapsed(), Duration::from_secs(seconds));
        }
        // One that is over before does not hold up the next, sooner or later.
        assert_eq!(alarm.bound(at(100), pin!(async { 1 })).await, Some(1));
        let mut dropped = Box::pin(bound(&alarm, at(60)));
        assert!(dropped.as_mut().now_or_never().is_none());
        drop(dropped);
        bound(&alarm, at(30)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(30));
        bound(&alarm, at(70)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(70));
        bound(&alarm, at(5)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(70), "it was over already");
    }

    #[tokio::test(start_paused = true)]
    async fn two_deadlines_at_once_both_hold() {
        let (alarm, start) = (Alarm::default(), Instant::now());
        for (inner, outer) in [(5, 3), (3, 5)] {
            let begun = Instant::now();
            let after = |seconds| begun + Duration::from_secs(seconds);
            let within = pin!(bound(&alarm, after(inner)));
            let done = alarm.bound(after(outer), within).await;
            assert_eq!(begun.elapsed(), Duration::from_secs(3));
            assert_eq!(done.is_some(), inner == 3);
        }
        assert_eq!(start.elapsed(), Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn another_task_that_asks_is_woken() {
        let alarm = std::sync::Arc::new(Alarm::default());
        let start = Instant::now();
        let first = std::sync::Arc::clone(&alarm);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { bound(&first, start + Duration::from_secs(9)).await });
        tokio::task::yield_now().await;
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        bound(&alarm, start + Duration::from_secs(10)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_for_a_task_that_has_used_up_its_turn_when_it_asks() {
        let (alarm, start) = (Alarm::default(), Instant::now());
        for seconds in [1, 2] {
            let mut is_greedy = true;
            let greedy = std::future::poll_fn(|_| {
                while std::mem::take(&mut is_greedy) {
                    // All that the runtime gives a task before others have theirs.
                    while tokio::task::coop::has_budget_remaining() {
                        let _taken = tokio::task::coop::consume_budget().now_or_never();
                    }
                }
                Poll::<()>::Pending
            });
            let mut greedy = pin!(greedy);
            let rung = alarm.bound(start + Duration::from_secs(seconds), greedy.as_mut());
            let late = start + Duration::from_mins(1);
            assert_eq!(tokio::time::timeout_at(late, rung).await, Ok(None));
            assert_eq!(start.elapsed(), Duration::from_secs(seconds));
        }
    }
}
