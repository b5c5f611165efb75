//! Ends that are asked whether they are there.

use super::*;

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(10);

/// A tunnel whose ends are asked.
async fn asked(
    client: &mut DuplexStream,
    backend: &mut DuplexStream,
    turn: impl Future<Output = EndedBy>,
    tally: &mut Tally,
) -> EndedBy {
    let liveness = Some(Liveness { interval: INTERVAL, timeout: TIMEOUT });
    let clock = Clock::new(HOUR, liveness, None);
    super::super::run(client, backend, clock, pin!(turn), tally).await
}

/// Reads a Ping of ours at the client's end, and gives its payload.
async fn asks_client(client: &mut DuplexStream) -> [u8; 8] {
    let [opcode, length, payload @ ..] = exactly::<10>(client).await;
    assert_eq!((opcode, length), (0x89, 8));
    payload
}

/// … and at the backend's.
async fn asks_backend(backend: &mut DuplexStream) -> [u8; 8] {
    let [opcode, length, mask @ .., b0, b1, b2, b3, b4, b5, b6, b7] = exactly::<14>(backend).await;
    assert_eq!((opcode, length), (0x89, 0x88));
    let mut payload = [b0, b1, b2, b3, b4, b5, b6, b7];
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    payload
}

fn pong_up(payload: [u8; 8]) -> Vec<u8> {
    [&[0x8a, 0x88, 0, 0, 0, 0][..], &payload].concat()
}

fn pong_down(payload: [u8; 8]) -> Vec<u8> {
    [&[0x8a, 8][..], &payload].concat()
}

#[tokio::test(start_paused = true)]
async fn ends_that_answer_stay_and_the_other_end_sees_nothing_of_it() {
    let start = Instant::now();
    let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(64));
    let (now, turn) = oneshot::channel();
    let mut tally = Tally::default();
    let talk = async {
        for round in 1..=20 {
            let (of_client, of_backend) =
                tokio::join!(asks_client(&mut client), asks_backend(&mut backend));
            assert_eq!(start.elapsed().as_secs(), 30 * round);
            // In two pieces, and with something of its own right behind.
            let answer = [&*pong_up(of_client), ASKED].concat();
            let (one, other) = answer.split_at(usize::try_from(round).unwrap() % answer.len());
            client.write_all(one).await.unwrap();
            tokio::task::yield_now().await;
            client.write_all(other).await.unwrap();
            backend.write_all(&[TOLD, &pong_down(of_backend), TOLD].concat()).await.unwrap();
            assert_eq!(exactly(&mut backend).await, *ASKED.as_array::<9>().unwrap());
            assert_eq!(&exactly::<8>(&mut client).await[..], [TOLD, TOLD].concat());
        }
        now.send(()).unwrap();
        assert_eq!(exactly(&mut client).await, CLOSE_DOWN);
        client.write_all(&CLOSE_UP).await.unwrap();
        assert_eq!(masked_close(&mut backend).await, 1012);
        backend.write_all(&CLOSE_DOWN).await.unwrap();
    };
    let (ended, ()) = tokio::join!(asked(&mut near, &mut far, given(turn), &mut tally), talk);
    assert_eq!(ended, EndedBy::Drain);
    let Tally { up, down, frames_up, frames_down, .. } = tally;
    assert_eq!((up, down, frames_up, frames_down), (20 * 9 + 8, 40 * 4 + 4, 21, 41));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_says_nothing_is_gone_and_the_other_is_told() {
    for client_is_gone in [true, false] {
        let start = Instant::now();
        let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(64));
        let mut tally = Tally::default();
        let talk = async {
            let (of_client, of_backend) =
                tokio::join!(asks_client(&mut client), asks_backend(&mut backend));
            if client_is_gone {
                backend.write_all(&pong_down(of_backend)).await.unwrap();
                assert_eq!(masked_close(&mut backend).await, 1001);
                backend.write_all(&[0x88, 2, 3, 0xe9]).await.unwrap();
                assert_eq!(backend.read(&mut [0]).await.unwrap(), 0);
            } else {
                client.write_all(&pong_up(of_client)).await.unwrap();
                assert_eq!(exactly(&mut client).await, CLOSE_DOWN);
                client.write_all(&CLOSE_UP).await.unwrap();
                assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            }
            start.elapsed()
        };
        let (ended, took) = tokio::join!(
            async {
                let ended = asked(&mut near, &mut far, never(), &mut tally).await;
                drop((near, far));
                ended
            },
            talk
        );
        let (gone, code) =
            if client_is_gone { (EndedBy::ClientLost, 1001) } else { (EndedBy::BackendLost, 1012) };
        assert_eq!((ended, tally.close), (gone, Some(code)));
        assert_eq!(took, INTERVAL + TIMEOUT);
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_of_the_other_ends_stands_for_ours_and_its_pong_passes() {
    let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(64));
    let mut tally = Tally::default();
    // Of the length of ours.
    let (asks, answer) = ([0x89, 8, 1, 2, 3, 4, 5, 6, 7, 8], pong_up([1, 2, 3, 4, 5, 6, 7, 8]));
    let talk = async {
        tokio::time::sleep(INTERVAL / 2).await;
        backend.write_all(&asks).await.unwrap();
        assert_eq!(exactly(&mut client).await, asks);
        // The backend is asked in time, and the client not: it owes an answer already.
        tokio::time::sleep(INTERVAL / 2 + TIMEOUT / 2).await;
        client.write_all(&answer).await.unwrap();
        assert_eq!(&exactly::<14>(&mut backend).await[..], answer);
        let payload = asks_backend(&mut backend).await;
        backend.write_all(&asks).await.unwrap();
        assert_eq!(exactly(&mut client).await, asks);
        backend.write_all(&pong_down(payload)).await.unwrap();
        client.write_all(&[&answer[..], ASKED].concat()).await.unwrap();
        assert_eq!(&exactly::<14>(&mut backend).await[..], answer);
        assert_eq!(exactly(&mut backend).await, *ASKED.as_array::<9>().unwrap());
        backend.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "nothing of ours has come");
        client.shutdown().await.unwrap();
    };
    let (ended, ()) = tokio::join!(asked(&mut near, &mut far, never(), &mut tally), talk);
    assert_eq!(ended, EndedBy::Backend);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_frames_is_parted_for_a_ping_and_a_slow_frame_is_not() {
    let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(1024));
    let mut tally = Tally::default();
    let talk = async {
        // The client only listens; at its turn to be asked a frame to it is under way.
        backend.write_all(&TOLD[..3]).await.unwrap();
        tokio::time::sleep(INTERVAL + TIMEOUT / 2).await;
        backend.write_all(&[&TOLD[3..], TOLD].concat()).await.unwrap();
        assert_eq!(exactly(&mut client).await, *TOLD.as_array::<4>().unwrap());
        let payload = asks_client(&mut client).await;
        assert_eq!(exactly(&mut client).await, *TOLD.as_array::<4>().unwrap());
        tokio::time::sleep(TIMEOUT * 9 / 10).await;
        client.write_all(&pong_up(payload)).await.unwrap();
        drop(client);
        let mut rest = Vec::new();
        backend.read_to_end(&mut rest).await.unwrap();
    };
    let (ended, ()) = tokio::join!(
        async {
            let ended = asked(&mut near, &mut far, never(), &mut tally).await;
            drop((near, far));
            ended
        },
        talk
    );
    assert_eq!(ended, EndedBy::Client);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_stops_the_writer_and_is_gone_in_time() {
    let start = Instant::now();
    let ((_client, mut near), (mut backend, mut far)) = (duplex(64), duplex(1024));
    let mut tally = Tally::default();
    let talk = async {
        let frame = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
        let mut sent = 0;
        // Until it is told, which is when it is heard again.
        while start.elapsed() < INTERVAL + TIMEOUT {
            backend.write_all(&frame).await.unwrap();
            sent += frame.len();
        }
        assert_eq!(masked_close(&mut backend).await, 1001);
        backend.write_all(&CLOSE_DOWN).await.unwrap();
        sent
    };
    let (ended, sent) = tokio::join!(
        async {
            let ended = asked(&mut near, &mut far, never(), &mut tally).await;
            drop((near, far));
            ended
        },
        talk
    );
    assert_eq!((ended, start.elapsed()), (EndedBy::ClientLost, INTERVAL + TIMEOUT));
    assert!(sent < 16 * 1024, "{sent} bytes were taken for a reader that takes none");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_stays_as_long_as_it_takes_something() {
    let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(1024));
    let mut tally = Tally::default();
    let fill = async {
        let frame = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
        while backend.write_all(&frame).await.is_ok() {}
    };
    let read = async {
        for _ in 0..20 {
            tokio::time::sleep(INTERVAL * 9 / 10).await;
            client.read_exact(&mut [0; 32]).await.unwrap();
        }
        drop(client);
    };
    let ended = async {
        let ended = asked(&mut near, &mut far, never(), &mut tally).await;
        drop((near, far));
        ended
    };
    assert_eq!(tokio::join!(ended, fill, read).0, EndedBy::Client);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_frame_is_not_asked() {
    let start = Instant::now();
    let ((mut client, mut near), (_backend, mut far)) = (duplex(64), duplex(64));
    let mut tally = Tally::default();
    client.write_all(b"irc").await.unwrap();
    assert_eq!(asked(&mut near, &mut far, never(), &mut tally).await, EndedBy::Idle);
    assert_eq!(start.elapsed(), HOUR);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_nobody_answers_is_not_waited_for_longer_than_a_pong() {
    for by_client in [true, false] {
        let start = Instant::now();
        let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(64));
        let mut tally = Tally::default();
        let talk = async {
            if by_client {
                client.write_all(&CLOSE_UP).await.unwrap();
            } else {
                backend.write_all(&CLOSE_DOWN).await.unwrap();
            }
            // What is still to be said before the answer puts it off.
            tokio::time::sleep(INTERVAL).await;
            if by_client {
                backend.write_all(TOLD).await.unwrap();
            } else {
                client.write_all(ASKED).await.unwrap();
            }
        };
        let (ended, ()) = tokio::join!(asked(&mut near, &mut far, never(), &mut tally), talk);
        assert_eq!(ended, if by_client { EndedBy::Client } else { EndedBy::Backend });
        assert_eq!(start.elapsed(), INTERVAL + INTERVAL + TIMEOUT);
    }
}
