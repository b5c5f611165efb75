//! A TCP relay with bad weather: what stands between two programs passes here, and the test says how well.
//!
//! Walk: [`Relay::before`] listens on a port of its own and opens one connection to the upstream for each that it
//! accepts. Each direction of every connection then obeys the present weather: bytes pass, are held back, or
//! are swallowed. A change holds at once, for old connections and new ones.
//!
//! Invariants: while a direction is held nothing is read from its source, so neither bytes nor its end get
//! through, and what was sent meanwhile comes afterwards, as TCP would repeat it; a cut is a reset on both
//! sides. Needs nothing else of the harness, so that unit tests can include it by its path.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes moved at a time.
const CHUNK: usize = 16 * 1024;

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Pass,
    /// Not even read: they come when this is over, where the connection still stands by then.
    Hold,
    /// Read and thrown away.
    Swallow,
}

/// One of the two directions of a connection.
#[derive(Clone, Copy, Debug)]
enum Way {
    ToUpstream,
    FromUpstream,
}

#[derive(Clone, Copy, Debug)]
struct Weather {
    upstream: SocketAddr,
    /// Whether new connections are let in; otherwise they are reset.
    admits: bool,
    to_upstream: Flow,
    from_upstream: Flow,
    /// How often everything was cut; a connection ends when it changes.
    cuts: u64,
}

impl Weather {
    fn flow(&self, way: Way) -> Flow {
        match way {
            Way::ToUpstream => self.to_upstream,
            Way::FromUpstream => self.from_upstream,
        }
    }
}

/// A relay that is gone, with all its connections, when it is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    open: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens on loopback, and passes everything on to `upstream`.
    pub(crate) async fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let weather = watch::Sender::new(Weather {
            upstream,
            admits: true,
            to_upstream: Flow::Pass,
            from_upstream: Flow::Pass,
            cuts: 0,
        });
        let open = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, weather.subscribe(), Arc::clone(&open)));
        Self { address, weather, open, _tasks: tasks }
    }

    /// A relay before a server on this port of loopback.
    pub(crate) async fn before_port(port: u16) -> Self {
        Self::before(SocketAddr::from(([127, 0, 0, 1], port))).await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections that stand at this moment, both sides of each.
    pub(crate) fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Good weather: lets connections in and bytes through, also those held back until now.
    pub(crate) fn pass(&self) {
        self.weather.send_modify(|weather| {
            weather.admits = true;
            weather.to_upstream = Flow::Pass;
            weather.from_upstream = Flow::Pass;
        });
    }

    /// Nothing passes any more, and nobody is told: connections stay, and new ones are accepted into the void.
    pub(crate) fn black_hole(&self) {
        self.black_hole_requests();
        self.black_hole_replies();
    }

    /// [`Self::black_hole`], from the clients to the upstream only.
    pub(crate) fn black_hole_requests(&self) {
        self.weather.send_modify(|weather| weather.to_upstream = Flow::Hold);
    }

    /// [`Self::black_hole`], from the upstream to the clients only.
    pub(crate) fn black_hole_replies(&self) {
        self.weather.send_modify(|weather| weather.from_upstream = Flow::Hold);
    }

    /// Requests arrive, and what comes back is thrown away for good. Follow it with [`Self::cut_all`]: a
    /// connection that goes on after it has lost a part of its stream is like nothing that TCP does.
    pub(crate) fn drop_replies(&self) {
        self.weather.send_modify(|weather| weather.from_upstream = Flow::Swallow);
    }

    /// New connections are reset at once; those that stand are not touched.
    pub(crate) fn refuse(&self) {
        self.weather.send_modify(|weather| weather.admits = false);
    }

    /// Resets every connection that stands; the weather remains, so after [`Self::pass`] and the like a client may
    /// come again at once.
    pub(crate) fn cut_all(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Connections made from now on go there; those that stand stay where they are.
    pub(crate) fn switch(&self, upstream: SocketAddr) {
        self.weather.send_modify(|weather| weather.upstream = upstream);
    }

    /// [`Self::switch`] to a port of loopback.
    pub(crate) fn switch_to_port(&self, port: u16) {
        self.switch(SocketAddr::from(([127, 0, 0, 1], port)));
    }
}

async fn accept(listener: TcpListener, weather: watch::Receiver<Weather>, open: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                if weather.borrow().admits {
                    connections.spawn(connection(client, weather.clone(), Arc::clone(&open)));
                } else {
                    reset(&client);
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The next drop of `stream` resets the connection instead of ending it in order.
fn reset(stream: &TcpStream) {
    drop(stream.set_zero_linger());
}

/// One connection, from its acceptance to the end of either side or the next cut.
async fn connection(
    mut client: TcpStream,
    weather: watch::Receiver<Weather>,
    open: Arc<AtomicUsize>,
) {
    let mut cut = pin!(changes(weather.clone(), weather.borrow().cuts));
    tokio::select! {
        biased;
        () = &mut cut => {}
        upstream = reach(weather.clone()) => {
            if let Ok(mut upstream) = upstream {
                let _counted = Counted::new(open);
                tokio::select! {
                    biased;
                    () = &mut cut => {}
                    ended = both_ways(&mut client, &mut upstream, &weather) => {
                        // An end in order is passed on as one; whatever else is a reset.
                        if ended.is_ok() { return }
                    }
                }
                reset(&upstream);
            }
        }
    }
    reset(&client);
}

/// Waits until everything was cut more often than `cuts` times.
async fn changes(mut weather: watch::Receiver<Weather>, cuts: u64) {
    drop(weather.wait_for(|weather| weather.cuts != cuts).await);
}

/// Opens the connection to the upstream, as soon as requests get through to it.
async fn reach(mut weather: watch::Receiver<Weather>) -> io::Result<TcpStream> {
    let upstream = match weather.wait_for(|weather| weather.to_upstream != Flow::Hold).await {
        Ok(weather) => weather.upstream,
        Err(error) => return Err(io::Error::other(error)),
    };
    TcpStream::connect(upstream).await
}

/// Moves bytes both ways until either source has ended.
async fn both_ways(
    client: &mut TcpStream,
    upstream: &mut TcpStream,
    weather: &watch::Receiver<Weather>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_upstream, to_upstream) = upstream.split();
    tokio::select! {
        ended = move_bytes(from_client, to_upstream, Way::ToUpstream, weather.clone()) => ended,
        ended = move_bytes(from_upstream, to_client, Way::FromUpstream, weather.clone()) => ended,
    }
}

async fn move_bytes(
    mut source: ReadHalf<'_>,
    mut sink: WriteHalf<'_>,
    way: Way,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        until(&mut weather, |weather| weather.flow(way) != Flow::Hold).await?;
        let length = tokio::select! {
            biased;
            held = until(&mut weather, |weather| weather.flow(way) == Flow::Hold) => {
                held?;
                continue;
            }
            length = source.read(&mut buffer) => length?,
        };
        if length == 0 {
            return sink.shutdown().await;
        }
        if weather.borrow().flow(way) != Flow::Swallow {
            sink.write_all(&buffer[..length]).await?;
        }
    }
}

async fn until(
    weather: &mut watch::Receiver<Weather>,
    condition: impl Fn(&Weather) -> bool,
) -> io::Result<()> {
    weather.wait_for(|weather| condition(weather)).await.map(drop).map_err(io::Error::other)
}

/// Counts one connection for as long as it stands.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
