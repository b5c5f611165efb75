//! Tunnels over pipes in memory, on paused time.

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test(start_paused = true)]
async fn a_half_close_lets_the_other_side_finish() {
    let ((mut client, mut near), (mut backend, mut far)) = (duplex(64), duplex(64));
    let mut moved = Moved::default();
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
        tokio::join!(run(&mut near, &mut far, HOUR, &mut moved), talk, answer);
    assert_eq!((&*asked, &*heard), ("question", "answer"));
    assert_eq!(ended, EndedBy::Client);
    assert_eq!(moved, Moved { up: 8, down: 6 });
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_reader_leaves_is_kept_in_order() {
    let (client, mut near) = duplex(64);
    let (mut backend, mut far) = duplex(64 * 1024);
    let sent: Vec<u8> = (0..60_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut moved = Moved::default();
    let (mut client_reads, mut client_writes) = tokio::io::split(client);
    let ended = async { run(&mut near, &mut far, HOUR, &mut moved).await };
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
    assert_eq!(moved, Moved { up: 0, down: 60_000 });
}

#[tokio::test(start_paused = true)]
async fn silence_ends_it_and_after_a_half_close_sooner() {
    let start = Instant::now();
    let ((_client, mut near), (_backend, mut far)) = (duplex(64), duplex(64));
    let mut moved = Moved::default();
    assert_eq!(run(&mut near, &mut far, HOUR, &mut moved).await, EndedBy::Idle);
    assert_eq!(start.elapsed().as_secs(), 3600);

    let start = Instant::now();
    let ((mut client, mut near), (_backend, mut far)) = (duplex(64), duplex(64));
    client.shutdown().await.unwrap();
    assert_eq!(run(&mut near, &mut far, HOUR, &mut moved).await, EndedBy::Client);
    assert_eq!(start.elapsed(), FIN_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn traffic_keeps_it_open() {
    let start = Instant::now();
    let ((mut client, mut near), (_backend, mut far)) = (duplex(64), duplex(64));
    let mut moved = Moved::default();
    let idle = Duration::from_secs(10);
    let talk = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            client.write_all(b".").await.unwrap();
        }
    };
    let (ended, ()) = tokio::join!(run(&mut near, &mut far, idle, &mut moved), talk);
    assert_eq!(ended, EndedBy::Idle);
    assert_eq!(start.elapsed().as_secs(), 55);
}
