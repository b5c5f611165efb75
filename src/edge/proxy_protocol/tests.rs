//! Headers whole and in pieces, good and bad, and from a real socket.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn block(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([0x20 | command, family]);
    bytes.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
    bytes.extend(addresses);
    bytes
}

const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];

fn v6() -> Vec<u8> {
    let mut addresses = Ipv6Addr::LOCALHOST.octets().to_vec();
    addresses.extend(Ipv6Addr::UNSPECIFIED.octets());
    addresses.extend([0, 5, 0, 6]);
    addresses
}

/// What a whole header says.
fn source(bytes: &[u8]) -> Option<String> {
    let header = parse(bytes).unwrap().expect("a whole header");
    assert_eq!(header.length, bytes.len());
    header.source.map(|source| source.to_string())
}

#[test]
fn addresses_are_read_in_both_versions() {
    let good: [(Vec<u8>, Option<&str>); 12] = [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\r\n".to_vec(), Some("192.0.2.7:8080")),
        (b"PROXY TCP6 2001:db8::1 ::1 8080 443\r\n".to_vec(), Some("[2001:db8::1]:8080")),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 0 65535\r\n".to_vec(), Some("192.0.2.7:0")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ffff::1 what ever 1 2 3\r\n".to_vec(), None),
        (block(1, 0x11, &V4), Some("192.0.2.7:8080")),
        (block(1, 0x21, &v6()), Some("[::1]:5")),
        // Extensions behind the addresses.
        (block(1, 0x11, &[&V4[..], &[0x04, 0, 3, 1, 2, 3]].concat()), Some("192.0.2.7:8080")),
        // LOCAL: the proxy asks for itself, whatever else it says.
        (block(0, 0, &[]), None),
        (block(0, 0x11, &V4), None),
        // UNSPEC, and a socket that is none of IP.
        (block(1, 0, &[1, 2, 3]), None),
        (block(1, 0x31, &[0; 216]), None),
    ];
    for (bytes, expected) in good {
        assert_eq!(source(&bytes).as_deref(), expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_is_malformed_is_told_as_soon_as_it_is_seen() {
    let long = format!("PROXY UNKNOWN {}", "x".repeat(100));
    let bad: [&[u8]; 18] = [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"PROXZ",
        b"\r\n\r\nX",
        b"PROXY TCP5 1.1.1.1 1.1.1.1 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 1.1.1.1 1.1.1.1 1 2\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 2 3\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 +1 2\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 01 2\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
        b"PROXY TCP4  1.1.1.1 1.1.1.1 1 2\r\n",
        b"PROXY TCP4 \xff\xff 1.1.1.1 1 2\r\n",
        long.as_bytes(),
        &block(2, 0x11, &V4),
        &block(1, 0x41, &V4),
        &block(1, 0x11, &V4[..11]),
    ];
    for bytes in bad {
        assert!(parse(bytes).is_err(), "{}", bytes.escape_ascii());
    }
    let mut other_version = block(1, 0x11, &V4);
    other_version[12] = 0x31;
    assert!(parse(&other_version).is_err());
    let mut huge = block(1, 0x11, &V4);
    huge[14] = 0x10;
    assert_eq!(parse(&huge), Err(Malformed::Bad("longer than what is taken here")));
}

fn header() -> impl Strategy<Value = Vec<u8>> {
    let line = (any::<[u8; 4]>(), any::<u16>()).prop_map(|(source, port)| {
        format!("PROXY TCP4 {} 10.0.0.1 {port} 80\r\n", Ipv4Addr::from(source)).into_bytes()
    });
    let extended = proptest::collection::vec(any::<u8>(), 0..300)
        .prop_map(|more| block(1, 0x11, &[&V4[..], &more].concat()));
    let local = proptest::collection::vec(any::<u8>(), 0..40).prop_map(|more| block(0, 0, &more));
    prop_oneof![line, extended, local]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_header_in_pieces_is_the_same(header in header(), after in proptest::collection::vec(any::<u8>(), 0..20)) {
        for end in 0..header.len() {
            prop_assert_eq!(parse(&header[..end]), Ok(None));
        }
        let whole = parse(&header).unwrap().unwrap();
        prop_assert_eq!(whole.length, header.len());
        prop_assert_eq!(parse(&[header, after].concat()).unwrap().unwrap(), whole);
    }

    #[test]
    fn nothing_makes_it_panic_or_wait_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..300), begun in 0..3) {
        let prefix: &[u8] = match begun { 0 => b"", 1 => SIGNATURE, _ => PREFIX };
        let mut all = [prefix, &bytes].concat();
        let _verdict = parse(&all);
        all.resize(MAX_BLOCK, 0);
        prop_assert_ne!(parse(&all), Ok(None));
    }
}

/// Sends `pieces` one after the other; gives what was taken, and what is left for who comes next.
async fn received(pieces: Vec<Vec<u8>>) -> (Result<Option<SocketAddr>, Unreceived>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let send = async {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.set_nodelay(true).unwrap();
        for piece in pieces {
            client.write_all(&piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let receive = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let outcome = receive(&stream, Duration::from_mins(1)).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        (outcome, rest)
    };
    tokio::join!(send, receive).1
}

#[tokio::test]
async fn not_a_byte_of_what_follows_is_taken() {
    let request = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    for header in [b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\r\n".to_vec(), block(1, 0x11, &V4)] {
        let together = vec![[header.clone(), request.clone()].concat()];
        let bytewise = header.iter().map(|byte| vec![*byte]).chain([request.clone()]).collect();
        for pieces in [together, bytewise] {
            let (source, rest) = received(pieces).await;
            assert_eq!(source.unwrap(), Some("192.0.2.7:8080".parse().unwrap()));
            assert_eq!(rest, request);
        }
    }
}

#[tokio::test]
async fn who_leaves_within_it_or_says_something_else_is_not_served() {
    let (cut, _) = received(vec![b"PROXY TCP4 1.1".to_vec()]).await;
    assert!(matches!(cut, Err(Unreceived::Io(_))), "{cut:?}");
    let (plain, _) = received(vec![b"GET / HTTP/1.1\r\n\r\n".to_vec()]).await;
    assert!(matches!(plain, Err(Unreceived::Malformed(Malformed::Missing))), "{plain:?}");
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let outcome = receive(&stream, Duration::from_millis(20)).await;
    assert!(matches!(outcome, Err(Unreceived::Timeout)), "{outcome:?}");
}
