//! The harness's relay does what it says: a fault test is worth no more than its fault.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::harness::relay::Relay;
use crate::harness::{eventually, within};

/// A server that greets with its letter, and then sends back what it gets.
async fn echo(letter: u8, tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                stream.write_all(&[letter]).await.unwrap();
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
        }
    });
    address
}

async fn hears(stream: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    within("an echo", stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, expected);
}

/// Nothing comes for a while; this alone needs to look at the clock.
async fn silent(stream: &mut TcpStream) {
    let mut one = [0];
    let read = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut one)).await;
    assert!(read.is_err(), "{read:?} came through: {one:?}");
}

async fn is_reset(stream: &mut TcpStream) {
    let read = within("a reset", stream.read(&mut [0])).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_black_hole_keeps_connections_and_gives_back_what_it_held() {
    let mut tasks = JoinSet::new();
    let relay = Relay::before(echo(b'a', &mut tasks).await).await;
    let mut client = TcpStream::connect(relay.address()).await.unwrap();
    hears(&mut client, b"a").await;
    relay.black_hole_replies();
    client.write_all(b"one").await.unwrap();
    silent(&mut client).await;
    relay.black_hole();
    client.write_all(b"two").await.unwrap();
    let mut late = TcpStream::connect(relay.address()).await.unwrap();
    silent(&mut late).await;
    silent(&mut client).await;
    assert_eq!(relay.connections(), 1);
    relay.pass();
    hears(&mut client, b"onetwo").await;
    hears(&mut late, b"a").await;
}

#[tokio::test]
async fn what_is_cut_is_reset_and_what_is_refused_never_gets_in() {
    let mut tasks = JoinSet::new();
    let relay = Relay::before(echo(b'a', &mut tasks).await).await;
    let mut client = TcpStream::connect(relay.address()).await.unwrap();
    hears(&mut client, b"a").await;
    relay.refuse();
    let mut refused = TcpStream::connect(relay.address()).await.unwrap();
    is_reset(&mut refused).await;
    client.write_all(b"still here").await.unwrap();
    hears(&mut client, b"still here").await;
    relay.cut_all();
    is_reset(&mut client).await;
    eventually("the end of it", async || relay.connections() == 0).await;
}

#[tokio::test]
async fn a_switch_leads_new_connections_elsewhere() {
    let mut tasks = JoinSet::new();
    let relay = Relay::before(echo(b'a', &mut tasks).await).await;
    let mut first = TcpStream::connect(relay.address()).await.unwrap();
    hears(&mut first, b"a").await;
    relay.switch(echo(b'b', &mut tasks).await);
    let mut second = TcpStream::connect(relay.address()).await.unwrap();
    hears(&mut second, b"b").await;
    first.write_all(b"old").await.unwrap();
    hears(&mut first, b"old").await;
}

#[tokio::test]
async fn dropped_replies_never_come() {
    let mut tasks = JoinSet::new();
    let relay = Relay::before(echo(b'a', &mut tasks).await).await;
    let mut client = TcpStream::connect(relay.address()).await.unwrap();
    hears(&mut client, b"a").await;
    relay.drop_replies();
    client.write_all(b"lost").await.unwrap();
    silent(&mut client).await;
    relay.pass();
    client.write_all(b"kept").await.unwrap();
    hears(&mut client, b"kept").await;
}

#[tokio::test]
async fn the_end_of_an_upstream_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = Relay::before(listener.local_addr().unwrap()).await;
    let mut client = TcpStream::connect(relay.address()).await.unwrap();
    drop(within("the relay", listener.accept()).await.unwrap());
    assert_eq!(within("the end", client.read(&mut [0])).await.unwrap(), 0);
    drop(listener);
    let mut client = TcpStream::connect(relay.address()).await.unwrap();
    is_reset(&mut client).await;
}
