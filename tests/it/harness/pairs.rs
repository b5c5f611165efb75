//! Talking pairs: many users, two and two, who write to each other for as long as the test wants, and come back
//! whatever happens, as a good client does.
//!
//! Walk: [`Pairs::start`] begins one task a user, and returns when everyone is connected. A user composes a message
//! at every tick, keeps it until it is acknowledged, and sends it again, with the same id, on every new connection
//! and after every refusal that may be repeated. He connects with the position that he has, honours `reconnect`,
//! and otherwise tries again after a random pause, each time at the next node. [`Pairs::finish`] stops composing,
//! waits until all is told, and gives the account.
//!
//! Invariants: one connection a user at a time; what was composed is never given up; the messages of a user
//! that are unacknowledged are few, so that an outage ends in a burst that is bounded.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use user::User;

mod user;

use super::ledger::{self, Account, Post, Reader};

/// How many talk, how often, and where.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) pairs: usize,
    /// Between two messages of a user.
    pub(crate) every: Duration,
    /// The hubs, shared out evenly; the two of a pair begin at different ones.
    pub(crate) hubs: Vec<SocketAddr>,
    /// How long the whole may take to recover, and to settle at the end.
    pub(crate) patience: Duration,
}

/// What goes to one user: promised by his partner's hub, shown by his own.
#[derive(Default)]
struct Flow {
    post: Post,
    reader: Reader,
    connected: bool,
    /// Composed and not acknowledged, by the partner.
    under_way: usize,
    connections: u64,
}

struct Shared {
    began: Instant,
    flows: Vec<Mutex<Flow>>,
}

impl Shared {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn flow(&self, user: usize) -> MutexGuard<'_, Flow> {
        self.flows[user].lock().unwrap()
    }

    fn all(&self, condition: impl Fn(&Flow) -> bool) -> bool {
        self.flows.iter().all(|flow| condition(&flow.lock().unwrap()))
    }
}

/// What the users are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Talk,
    /// Compose no more, and get rid of what was composed.
    Settle,
    Leave,
}

pub(crate) struct Pairs {
    shared: Arc<Shared>,
    order: watch::Sender<Order>,
    patience: Duration,
    users: JoinSet<()>,
}

impl Pairs {
    /// Everybody is connected, and has had a message acknowledged and delivered, when this returns.
    pub(crate) async fn start(plan: &Plan) -> Self {
        let flows = (0..plan.pairs * 2).map(|_| Mutex::default()).collect();
        let shared = Arc::new(Shared { began: Instant::now(), flows });
        let (order, orders) = watch::channel(Order::Settle);
        let mut users = JoinSet::new();
        for number in 0..plan.pairs * 2 {
            let (shared, orders) = (Arc::clone(&shared), orders.clone());
            users.spawn(User::new(number, plan, shared, orders).run());
        }
        let pairs = Self { shared, order, patience: plan.patience, users };
        pairs.wait("everybody's connection", |flow| flow.connected).await;
        pairs.order.send_replace(Order::Talk);
        pairs.recovered(Duration::ZERO).await;
        pairs
    }

    /// On the clock of the pairs.
    pub(crate) fn now(&self) -> Duration {
        self.shared.now()
    }

    /// Waits until every user has got a message that was sent at `since` or later, and its sender the ack; says how
    /// long after `since` that was.
    pub(crate) async fn recovered(&self, since: Duration) -> Duration {
        let of = |flow: &Flow| ledger::recovered(&flow.post, &flow.reader, since);
        self.wait("recovery", |flow| of(flow).is_some()).await;
        let times = self.shared.flows.iter().filter_map(|flow| of(&flow.lock().unwrap()));
        times.max().unwrap_or_default()
    }

    /// Messages acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.account().acknowledged
    }

    /// Waits until so many messages more than now have been acknowledged.
    pub(crate) async fn talked(&self, messages: u64) {
        let goal = self.acknowledged() + messages;
        let talked = async {
            while self.acknowledged() < goal {
                sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(timeout(self.patience, talked).await.is_ok(), "nobody talks: {}", self.explain());
    }

    /// Lets everything arrive that was sent, and ends all connections. Where something does not arrive in time, the account
    /// says what.
    pub(crate) async fn finish(mut self) -> Account {
        self.order.send_replace(Order::Settle);
        let settled =
            |flow: &Flow| flow.under_way == 0 && ledger::is_settled(&flow.post, &flow.reader);
        drop(timeout(self.patience, self.until(settled)).await);
        self.order.send_replace(Order::Leave);
        while let Some(ended) = self.users.join_next().await {
            ended.expect("a user does not panic");
        }
        let mut account = self.account();
        let stuck: usize = self.shared.flows.iter().map(|f| f.lock().unwrap().under_way).sum();
        if stuck > 0 {
            account.words.push(format!("{stuck} messages were never acknowledged"));
        }
        account
    }

    /// Connections made, first ones included.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.flows.iter().map(|flow| flow.lock().unwrap().connections).sum()
    }

    fn account(&self) -> Account {
        let mut sum = Account::default();
        for flow in &self.shared.flows {
            let flow = flow.lock().unwrap();
            sum.add(Account::of(&flow.post, &flow.reader));
        }
        sum
    }

    fn explain(&self) -> String {
        let away = self.shared.flows.iter().filter(|flow| !flow.lock().unwrap().connected).count();
        let account = self.account();
        format!("{away} users are not connected; {account:?}\n{}", account.explain())
    }

    async fn until(&self, condition: impl Fn(&Flow) -> bool) {
        while !self.shared.all(&condition) {
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn wait(&self, what: &str, condition: impl Fn(&Flow) -> bool) {
        let waited = timeout(self.patience, self.until(condition)).await;
        let patience = self.patience;
        assert!(waited.is_ok(), "waited {patience:?} in vain for {what}: {}", self.explain());
    }
}
