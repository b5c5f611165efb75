//! Names whose resolver a test makes up, and addresses that refuse, hang and answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::net::TcpListener;

use super::*;
use crate::proxy::backends::Address;
use crate::proxy::dial::{ConnectError, tcp};

const LONG: Duration = Duration::from_secs(20);

/// A resolver whose answer a test changes as it goes; `None` hangs until the test ends.
struct Zone {
    answer: Mutex<Option<Vec<SocketAddr>>>,
    lookups: AtomicUsize,
    /// Threads that hang now, and the most there were.
    hanging: AtomicUsize,
    ends: Mutex<Vec<SyncSender<()>>>,
}

impl Zone {
    fn with(answer: impl Into<Option<Vec<SocketAddr>>>) -> Arc<Self> {
        Arc::new(Self {
            answer: Mutex::new(answer.into()),
            lookups: AtomicUsize::new(0),
            hanging: AtomicUsize::new(0),
            ends: Mutex::default(),
        })
    }

    fn name(self: &Arc<Self>) -> Arc<Name> {
        let zone = Arc::clone(self);
        Name::resolved_by("backend.test", 80, Box::new(move |_, _| zone.look_up()))
    }

    fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().unwrap().clone();
        if let Some(answer) = answer {
            return Ok(answer);
        }
        let (end, ended) = sync_channel(0);
        self.ends.lock().unwrap().push(end);
        self.hanging.fetch_add(1, Ordering::SeqCst);
        // Until the test drops the other end.
        ended.recv().ok();
        self.hanging.fetch_sub(1, Ordering::SeqCst);
        Err(io::Error::other("the resolver gave up"))
    }

    fn says(&self, answer: impl Into<Option<Vec<SocketAddr>>>) {
        *self.answer.lock().unwrap() = answer.into();
    }

    /// Those that hang fail.
    fn gives_up(&self) {
        self.ends.lock().unwrap().clear();
    }

    fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        self.gives_up();
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Makes an old answer of what is known.
fn age(name: &Name) {
    name.known.send_modify(|known| known.fresh_until = None);
}

/// Waits for what comes of another thread, which on a busy machine may begin after those who ask have gone on with what
/// they had.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

#[test]
fn families_take_turns() {
    let (four, six) =
        (|n: u16| at(&format!("10.0.0.1:{n}")), |n: u16| at(&format!("[fd00::1]:{n}")));
    assert_eq!(interleaved(&[]), []);
    assert_eq!(interleaved(&[six(1), six(2), four(1)]), [six(1), four(1), six(2)]);
    assert_eq!(interleaved(&[four(1), six(1), six(2)]), [four(1), six(1), six(2)]);
    assert_eq!(
        interleaved(&[six(1), six(2), six(3), four(1), four(2)]),
        [six(1), four(1), six(2), four(2), six(3)]
    );
}

#[tokio::test]
async fn who_was_passed_comes_behind_for_a_while() {
    let (one, two, three) = (at("[fd00::1]:1"), at("[fd00::2]:1"), at("10.0.0.3:1"));
    let name = Zone::with(vec![one, two, three]).name();
    assert_eq!(name.addresses().await.unwrap(), [one, three, two]);
    name.dialed(three, &[one]);
    assert_eq!(name.addresses().await.unwrap(), [two, three, one]);
    name.dialed(three, &[two]);
    assert_eq!(name.addresses().await.unwrap(), [three, one, two]);
    // Over the next lookup, and until it has won.
    age(&name);
    assert_eq!(name.addresses().await.unwrap(), [three, one, two]);
    name.dialed(one, &[three]);
    assert_eq!(name.addresses().await.unwrap(), [one, two, three]);
    let later = Instant::now() + BEHIND_FOR;
    assert_eq!(name.known.borrow().in_order(later), [one, three, two]);
    // Where all have failed, that says nothing of one.
    name.failed();
    assert_eq!(name.addresses().await.unwrap(), [one, three, two]);
}

#[tokio::test]
async fn a_name_is_looked_up_anew_after_a_while_and_after_a_failure() {
    let (old, new) = (vec![at("10.0.0.1:1")], vec![at("10.0.0.2:1")]);
    let zone = Zone::with(old.clone());
    let name = zone.name();
    for _ in 0..3 {
        assert_eq!(name.addresses().await.unwrap(), old);
    }
    assert_eq!(zone.lookups(), 1);
    let asked = name.known.borrow().fresh_until.unwrap();
    assert!(asked <= Instant::now() + FRESH, "old by itself");
    zone.says(new.clone());
    age(&name);
    until("the new one", async || name.addresses().await.unwrap() == new).await;
    zone.says(old.clone());
    name.failed();
    until("the old one", async || name.addresses().await.unwrap() == old).await;
    assert_eq!((name.found(), name.lookups()), (old, Lookups { found: 3, failed: 0 }));
}

#[tokio::test]
async fn a_resolver_that_hangs_holds_one_thread_and_known_addresses_serve_on() {
    let known = vec![at("10.0.0.1:1")];
    let zone = Zone::with(known.clone());
    let name = zone.name();
    name.addresses().await.unwrap();
    zone.says(None);
    for _ in 0..20 {
        age(&name);
        assert_eq!(name.addresses().await.unwrap(), known);
    }
    let hanging = || zone.hanging.load(Ordering::SeqCst);
    until("one that hangs", async || hanging() == 1).await;
    assert_eq!((zone.lookups(), hanging()), (2, 1));
    // It fails at last, and works again.
    let mut seen = name.known.subscribe();
    zone.gives_up();
    seen.wait_for(|known| known.asked.is_none()).await.unwrap();
    assert_eq!((name.found(), name.lookups()), (known, Lookups { found: 1, failed: 1 }));
    zone.says(vec![at("10.0.0.2:1")]);
    until("the new one", async || name.addresses().await.unwrap() == [at("10.0.0.2:1")]).await;
}

#[tokio::test]
async fn a_name_that_was_never_found_is_waited_for_within_the_limit() {
    let zone = Zone::with(None);
    let (address, limit) = (Address::Name(zone.name()), Duration::from_millis(50));
    for _ in 0..5 {
        let failed = tcp(&address, limit).await;
        assert!(matches!(failed, Err(ConnectError::Timeout(_))), "{failed:?}");
    }
    until("the lookup", async || zone.lookups() > 0).await;
    assert_eq!(zone.lookups(), 1, "who comes later waits for the same");
    let empty = Address::Name(Zone::with(Vec::new()).name());
    let failed = tcp(&empty, LONG).await.unwrap_err();
    assert_eq!(failed.to_string(), "the name has no address");
}

/// A port that refuses, and nobody else's while the socket is there.
fn refusing() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&at("127.0.0.1:0").into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A listener at which one more connection would wait for ever: its queue is full.
async fn black_hole() -> (socket2::Socket, SocketAddr, Vec<tokio::net::TcpStream>) {
    let (socket, address) = refusing();
    socket.listen(0).unwrap();
    let mut fill = Vec::new();
    let one = || {
        tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(address))
    };
    while let Ok(Ok(stream)) = one().await {
        fill.push(stream);
        assert!(fill.len() < 64, "this system's queues never fill");
    }
    (socket, address, fill)
}

#[tokio::test]
async fn a_black_hole_costs_one_delay_and_the_next_dial_nothing() {
    let (_socket, hole, _fill) = black_hole().await;
    let (_held, refusing) = refusing();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let well = listener.local_addr().unwrap();
    let name = Zone::with(vec![hole, refusing, well]).name();
    let address = Address::Name(Arc::clone(&name));
    let begun = std::time::Instant::now();
    let stream = tcp(&address, LONG).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), well);
    assert!(begun.elapsed() >= crate::proxy::dial::eyeballs::ATTEMPT_DELAY, "it had its chance");
    assert!(begun.elapsed() < LONG / 4, "{:?}", begun.elapsed());
    assert_eq!(name.addresses().await.unwrap(), [well, hole, refusing]);
    let stream = tcp(&address, LONG).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), well);
    // Where there is nothing but the hole, the limit ends it, and the name is looked up anew.
    let only = Zone::with(vec![hole]);
    let address = Address::Name(only.name());
    for lookups in 1..=2 {
        let failed = tcp(&address, Duration::from_millis(400)).await;
        assert!(matches!(failed, Err(ConnectError::Timeout(_))), "{failed:?}");
        assert_eq!(only.lookups(), lookups);
    }
}

#[tokio::test]
async fn one_that_refuses_costs_no_delay() {
    let (_held, refusing) = refusing();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let well = listener.local_addr().unwrap();
    let addresses = [refusing, well];
    // Where the delay had to pass, this would never end.
    let won = crate::proxy::dial::eyeballs::first_of(&addresses, Duration::from_hours(1));
    let won = tokio::time::timeout(LONG, won).await.unwrap().unwrap();
    assert_eq!((won.address, won.passed), (well, &[refusing][..]));
    let none = crate::proxy::dial::eyeballs::first_of(&addresses[..1], LONG).await.unwrap_err();
    assert_eq!(none.kind(), io::ErrorKind::ConnectionRefused);
}
