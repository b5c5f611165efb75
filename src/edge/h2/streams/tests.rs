//! Slow readers, floods and drains, as the watchdog sees them.

use futures_util::FutureExt as _;
use hyper::rt::Executor as _;

use super::*;
use crate::shutdown::Drain;

#[tokio::test]
async fn a_reader_that_takes_nothing_loses_its_stream_and_no_other() {
    let streams = Arc::new(Streams::default());
    let (slow, quick) = (streams.begin(), {
        Owner(Arc::clone(&streams)).execute(std::future::pending());
        streams.begin()
    });
    Owner(Arc::clone(&streams)).execute(std::future::pending());
    slow.offers(0);
    for _ in 0..4 {
        quick.offers(1);
        streams.end_slow(2, 0);
        quick.asks();
    }
    while streams.sample().open > 1 {
        tokio::task::yield_now().await;
    }
    assert!(slow.stream.task.get().unwrap().is_finished());
    assert!(!quick.stream.task.get().unwrap().is_finished());
}

#[test]
fn a_piece_is_handed_over_in_parts() {
    let stream = Arc::new(Streams::default()).begin();
    let whole = Bytes::from(vec![7; 2 * PIECE + 1]);
    assert_eq!(stream.cut(whole).len(), PIECE);
    assert!(stream.has_rest());
    assert_eq!((stream.rest().unwrap().len(), stream.rest().unwrap().len()), (PIECE, 1));
    assert!(!stream.has_rest() && stream.rest().is_none());
    assert_eq!(stream.cut(Bytes::from_static(b"small")), "small");
    assert!(stream.rest().is_none());
}

/// Ten seconds and one piece of 16 KiB at 1,000 bytes a second: 26.
#[tokio::test(start_paused = true)]
async fn a_reader_below_the_rate_loses_its_stream_and_no_other() {
    let streams = Arc::new(Streams::default());
    let begin = || {
        let stream = streams.begin();
        Owner(Arc::clone(&streams)).execute(std::future::pending());
        stream
    };
    let (slow, quick) = (begin(), begin());
    for second in 0..28 {
        for (stream, bytes) in [(&slow, 300), (&quick, 1_100)] {
            stream.asks();
            stream.offers(bytes);
        }
        assert_eq!(slow.is_slow_reader(), second == 27, "after {second} seconds");
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        streams.end_slow(100, 1_000);
    }
    assert!(!quick.is_slow_reader());
}

#[tokio::test]
async fn who_gives_up_too_much_is_found_out() {
    let (streams, drain) = (Arc::new(Streams::default()), Drain::new());
    let finish = |abandoned| streams.begin().finish(drain.in_flight(), abandoned);
    for _ in 0..1_000 {
        finish(true);
        finish(false);
    }
    assert!(streams.flooded().now_or_never().is_none(), "as many are waited for");
    (0..=MAX_ABANDONED).for_each(|_| finish(true));
    assert!(streams.flooded().now_or_never().is_some());
}

#[test]
fn a_drain_waits_until_the_system_has_the_answer() {
    let (streams, drain) = (Arc::new(Streams::default()), Drain::new());
    streams.begin().finish(drain.in_flight(), false);
    assert_eq!(drain.flights(), 1);
    streams.all_sent();
    assert_eq!(drain.flights(), 0);
    assert!(lock(&streams.open).is_empty());
}

#[test]
fn a_drain_waits_for_the_last_frame_of_an_answer() {
    let (streams, drain) = (Arc::new(Streams::default()), Drain::new());
    let sends_all = || {
        streams.all_sent();
        drain.flights()
    };
    streams.answer_begins(1);
    streams.begin().finish(drain.in_flight(), false);
    assert_eq!(sends_all(), 0, "nobody waits yet");
    streams.drain(drain.in_flight());
    assert_eq!(sends_all(), 1);
    streams.begin().finish(drain.in_flight(), false);
    assert_eq!(sends_all(), 1);
    assert!(streams.answer_ends(1) && !streams.answer_ends(1));
    assert_eq!(sends_all(), 0);
    streams.drain(drain.in_flight());
    assert_eq!(drain.flights(), 0, "nothing is under way");
}
