//! Tunnels over pipes in memory, on paused time.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::oneshot;

use super::goodbye::{ANSWER_TIMEOUT, GOODBYE_TIMEOUT};
use super::*;

mod silence;

const HOUR: Duration = Duration::from_hours(1);

/// A tunnel with a turn of its own.
async fn run(
    client: &mut DuplexStream,
    backend: &mut DuplexStream,
    idle_timeout: Duration,
    turn: impl Future<Output = EndedBy>,
    tally: &mut Tally,
) -> EndedBy {
    let clock = Clock::new(idle_timeout, None, None);
    super::run(client, backend, clock, pin!(turn), tally).await
}

/// A turn that does not come.
fn never() -> std::future::Pending<EndedBy> {
    std::future::pending()
}

/// The turn of a drain, when it is given.
async fn given(turn: oneshot::Receiver<()>) -> EndedBy {
    turn.await.unwrap();
    EndedBy::Drain
}

/// A text frame of the client's, and one of the backend's.
const ASKED: &[u8] = &[0x81, 0x83, 1, 2, 3, 4, b'h' ^ 1, b'e' ^ 2, b'y' ^ 3];
const TOLD: &[u8] = &[0x81, 2, b'y', b'o'];
/// A Close 1012, as a server and (masked with nothing) as a client writes it.
const CLOSE_DOWN: [u8; 4] = [0x88, 2, 3, 0xf4];
const CLOSE_UP: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 3, 0xf4];

async fn exactly<const N: usize>(from: &mut DuplexStream) -> [u8; N] {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// Reads a masked Close and says its code.
async fn masked_close(from: &mut DuplexStream) -> u16 {
    let [opcode, length, a, b, _, _, high, low] = exactly(from).await;
    assert_eq!((opcode, length), (0x88, 0x82));
    u16::from_be_bytes([high ^ a, low ^ b])
}

#[tokio::test(start_paused = true)]
async fn a_half_close_lets_the_other_side_finish() {
    let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(64));
    let mut moved = Tally::default();
    let talk = async {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        heard
    };
    let answer = async {
        let mut heard = String::new();
        backend.read_to_string(&mut heard).await.unwrap();
        tokio::time::sleep(FIN_TIMEOUT / 2).await;
        backend.write_all(b"answer").await.unwrap();
        backend.shutdown().await.unwrap();
        heard
    };
    let (ended, heard, asked) =
        tokio::join!(run(&mut near, &mut far, HOUR, never(), &mut moved), talk, answer);
    assert_eq!((&*asked, &*heard), ("question", "answer"));
    assert_eq!(ended, EndedBy::Client);
    assert_eq!((moved.up, moved.down), (8, 6));
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_reader_leaves_is_kept_in_order() {
    let (client, mut near) = duplex(64);
    let (mut backend, mut far) = duplex(64 * 1024);
    let sent: Vec<u8> = (0..60_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut moved = Tally::default();
    let (mut client_reads, mut client_writes) = tokio::io::split(client);
    let ended = async { run(&mut near, &mut far, HOUR, never(), &mut moved).await };
    let talk = async {
        backend.write_all(&sent).await.unwrap();
        backend.shutdown().await.unwrap();
        let mut got = Vec::new();
        client_reads.read_to_end(&mut got).await.unwrap();
        client_writes.shutdown().await.unwrap();
        got
    };
    let (ended, got) = tokio::join!(ended, talk);
    assert_eq!(got, sent);
    assert_eq!(ended, EndedBy::Backend);
    assert_eq!((moved.up, moved.down), (0, 60_000));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_it_and_after_a_half_close_sooner() {
    let start = Instant::now();
    let ((_client, mut near), (_backend, mut far)) = (duplex(64), duplex(64));
    let mut moved = Tally::default();
    assert_eq!(run(&mut near, &mut far, HOUR, never(), &mut moved).await, EndedBy::Idle);
    assert_eq!(start.elapsed().as_secs(), 3600);

    let start = Instant::now();
    let ((mut client, mut near), (_backend, mut far)) = (duplex(64), duplex(64));
    client.shutdown().await.unwrap();
    assert_eq!(run(&mut near, &mut far, HOUR, never(), &mut moved).await, EndedBy::Client);
    assert_eq!(start.elapsed(), FIN_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn traffic_keeps_it_open() {
    let start = Instant::now();
    let ((mut client, mut near), (_backend, mut far)) = (duplex(64), duplex(64));
    let mut moved = Tally::default();
    let idle = Duration::from_secs(10);
    let talk = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            client.write_all(b".").await.unwrap();
        }
    };
    let (ended, ()) = tokio::join!(run(&mut near, &mut far, idle, never(), &mut moved), talk);
    assert_eq!(ended, EndedBy::Idle);
    assert_eq!(start.elapsed().as_secs(), 55);
}

#[tokio::test(start_paused = true)]
async fn at_its_turn_both_are_told_and_nothing_that_the_client_said_is_lost() {
    let start = Instant::now();
    let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(64));
    let (now, turn) = oneshot::channel();
    let mut tally = Tally::default();
    let talk = async {
        client.write_all(ASKED).await.unwrap();
        backend.write_all(TOLD).await.unwrap();
        assert_eq!(exactly(&mut backend).await, *ASKED.as_array::<9>().unwrap());
        assert_eq!(exactly(&mut client).await, *TOLD.as_array::<4>().unwrap());
        now.send(()).unwrap();
        assert_eq!(exactly(&mut client).await, CLOSE_DOWN);
        // Said before the client has seen it.
        client.write_all(ASKED).await.unwrap();
        // It comes too late: nothing follows a Close.
        backend.write_all(TOLD).await.unwrap();
        assert_eq!(exactly(&mut backend).await, *ASKED.as_array::<9>().unwrap());
        client.write_all(&CLOSE_UP).await.unwrap();
        assert_eq!(masked_close(&mut backend).await, 1012);
        backend.write_all(&CLOSE_DOWN).await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        backend.read_to_end(&mut rest).await.unwrap();
        rest
    };
    let (ended, rest) = tokio::join!(
        async {
            let ended = run(&mut near, &mut far, HOUR, given(turn), &mut tally).await;
            drop((near, far));
            ended
        },
        talk
    );
    assert_eq!((ended, rest), (EndedBy::Drain, vec![]));
    let Tally { frames_up, frames_down, close, .. } = tally;
    assert_eq!((frames_up, frames_down, close), (3, 3, Some(1012)));
    assert!(start.elapsed().is_zero(), "nobody was waited for in vain");
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_under_way_is_finished_first() {
    let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(64));
    let (now, turn) = oneshot::channel();
    let mut tally = Tally::default();
    let talk = async {
        backend.write_all(&TOLD[..3]).await.unwrap();
        client.write_all(&ASKED[..1]).await.unwrap();
        assert_eq!(exactly(&mut client).await, *TOLD[..3].as_array::<3>().unwrap());
        now.send(()).unwrap();
        tokio::time::sleep(ANSWER_TIMEOUT / 2).await;
        // What comes in one piece with the end of the frame is not passed on.
        backend.write_all(&[&TOLD[3..], TOLD].concat()).await.unwrap();
        assert_eq!(exactly(&mut client).await, [b'o', 0x88, 2, 3, 0xf4]);
        client.write_all(&[&ASKED[1..], &CLOSE_UP, ASKED].concat()).await.unwrap();
        assert_eq!(exactly(&mut backend).await, *ASKED.as_array::<9>().unwrap());
        assert_eq!(masked_close(&mut backend).await, 1012);
        backend.write_all(&CLOSE_DOWN).await.unwrap();
    };
    let (ended, ()) = tokio::join!(run(&mut near, &mut far, HOUR, given(turn), &mut tally), talk);
    assert_eq!(ended, EndedBy::Drain);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_does_not_keep_the_backend_waiting() {
    let start = Instant::now();
    let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(64));
    let (now, turn) = oneshot::channel();
    now.send(()).unwrap();
    let mut tally = Tally::default();
    let talk = async {
        assert_eq!(exactly(&mut client).await, CLOSE_DOWN);
        assert_eq!(masked_close(&mut backend).await, 1012);
        assert_eq!(start.elapsed(), ANSWER_TIMEOUT);
        backend.write_all(&CLOSE_DOWN).await.unwrap();
    };
    let (ended, ()) = tokio::join!(run(&mut near, &mut far, HOUR, given(turn), &mut tally), talk);
    assert_eq!((ended, start.elapsed()), (EndedBy::Drain, ANSWER_TIMEOUT));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_without_a_close_is_told_of_to_the_other() {
    let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(64));
    let (now, turn) = oneshot::channel();
    now.send(()).unwrap();
    let mut tally = Tally::default();
    let talk = async {
        assert_eq!(exactly(&mut client).await, CLOSE_DOWN);
        client.shutdown().await.unwrap();
        assert_eq!(masked_close(&mut backend).await, 1012);
        backend.shutdown().await.unwrap();
    };
    tokio::join!(run(&mut near, &mut far, HOUR, given(turn), &mut tally), talk);
}

#[tokio::test(start_paused = true)]
async fn the_goodbye_is_bounded_and_what_is_no_frame_is_cut_at_once() {
    for (said, took) in [(&TOLD[..3], GOODBYE_TIMEOUT), (b"irc", Duration::ZERO)] {
        let start = Instant::now();
        let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(64));
        let (now, turn) = oneshot::channel();
        let mut tally = Tally::default();
        let talk = async {
            backend.write_all(said).await.unwrap();
            assert_eq!(exactly::<3>(&mut client).await, *said.as_array::<3>().unwrap());
            now.send(()).unwrap();
        };
        let (ended, ()) =
            tokio::join!(run(&mut near, &mut far, HOUR, given(turn), &mut tally), talk);
        assert_eq!((ended, start.elapsed()), (EndedBy::Drain, took), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn ends_that_are_closing_already_are_let_finish() {
    let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(64));
    let (now, turn) = oneshot::channel();
    let mut tally = Tally::default();
    let gone = [0x88, 2, 3, 0xe9];
    let talk = async {
        backend.write_all(&gone).await.unwrap();
        assert_eq!(exactly(&mut client).await, gone);
        now.send(()).unwrap();
        tokio::task::yield_now().await;
        client.write_all(&CLOSE_UP).await.unwrap();
        assert_eq!(exactly(&mut backend).await, CLOSE_UP);
        backend.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        client.shutdown().await.unwrap();
    };
    let (ended, ()) = tokio::join!(run(&mut near, &mut far, HOUR, given(turn), &mut tally), talk);
    assert_eq!((ended, tally.close), (EndedBy::Backend, Some(1001)));
}

#[tokio::test]
async fn an_idle_tunnel_is_small() {
    let (mut near, mut far, mut tally) = (tokio::io::empty(), tokio::io::empty(), Tally::default());
    let liveness = Some(Liveness { interval: HOUR, timeout: HOUR });
    let (clock, mut turn) = (Clock::new(HOUR, liveness, None), pin!(never()));
    let size = size_of_val(&super::run(&mut near, &mut far, clock, turn.as_mut(), &mut tally));
    assert!(size <= 512, "{size} bytes");
}
