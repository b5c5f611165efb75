//! The real things, and what each step does to them.
//!
//! Walk: [`World::take`] does one step and then lets every connected device have what it has a right to. One user
//! sends, through either gateway; two receive, one of them on two devices.
//!
//! Invariants: a message is sent again, with its id, until it is acknowledged; while Redis is away it waits for the
//! next time that it is not. The old primary is gone before anything else happens after a promotion.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use meridian::settings::Secret;
use serde_json::{Value, json};

use super::device::{Device, name};
use super::schedule::{Files, Step, View, With};
use super::store::{Age, Store};
use crate::harness::chat::Chat;
use crate::harness::gateway::Gateway;
use crate::harness::http::get;
use crate::harness::ledger::{Key, Post};
use crate::harness::redis::RedisServer;
use crate::harness::relay::Relay;
use crate::harness::{eventually, within};

/// Messages that an inbox keeps.
const MOST: usize = 8;
/// Who receives on which device.
const DEVICES: [usize; 3] = [0, 0, 1];
const USERS: usize = 2;
const SENDER: &str = "s";
/// A command fails after this; nothing here is slow unless it is broken.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(700);

/// A message that was acknowledged.
struct Stored {
    user: usize,
    id: String,
    seq: u64,
    age: Age,
}

pub(super) struct World {
    files: Files,
    primary: RedisServer,
    replica: RedisServer,
    /// From the replica to the primary.
    link: Relay,
    /// From each gateway to the primary.
    relays: [Relay; 2],
    gateways: [Gateway; 2],
    senders: [Chat; 2],
    devices: Vec<Device>,
    posts: Vec<Post>,
    store: Store,
    began: Instant,
    up: bool,
    parted: bool,
    sent: usize,
    stored: Vec<Stored>,
    /// Sent while Redis was away: to whom, and the id.
    waiting: Vec<(usize, String)>,
}

impl World {
    pub(super) async fn new(files: Files) -> Self {
        let primary = server(files).await;
        let link = Relay::before_port(primary.port()).await;
        let replica = replica(files, &link).await;
        let relays =
            [Relay::before_port(primary.port()).await, Relay::before_port(primary.port()).await];
        let gateways = [gateway(&relays[0]).await, gateway(&relays[1]).await];
        for gateway in &gateways {
            ready(gateway).await;
        }
        let senders = [
            Chat::join(hub(&gateways[0]), SENDER).await,
            Chat::join(hub(&gateways[1]), SENDER).await,
        ];
        let began = Instant::now();
        let mut world = Self {
            files,
            primary,
            replica,
            link,
            relays,
            gateways,
            senders,
            devices: (0..).zip(DEVICES).map(|(n, user)| Device::new(n, user, began)).collect(),
            posts: (0..USERS).map(|_| Post::default()).collect(),
            store: Store::new(USERS, MOST as u64),
            began,
            up: true,
            parted: false,
            sent: 0,
            stored: Vec::new(),
            waiting: Vec::new(),
        };
        for device in 0..DEVICES.len() {
            world.connect(device, device % 2, With::Nothing).await;
        }
        world
    }

    pub(super) fn view(&self) -> View {
        View { up: self.up, parted: self.parted, users: USERS, devices: DEVICES.len() }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Does one step, and waits for what must follow.
    pub(super) async fn take(&mut self, step: Step) {
        match step {
            Step::Publish { user, gateway } => self.publish(user, gateway).await,
            Step::Burst { user, gateway, messages } => {
                for _ in 0..messages {
                    self.publish(user, gateway).await;
                }
            }
            Step::Repeat { user, gateway, back } => self.repeat(user, gateway, back).await,
            Step::Unheard { user, gateway } => self.unheard(user, gateway).await,
            Step::Connect { device, gateway, with } => self.connect(device, gateway, with).await,
            Step::Disconnect { device } => self.devices[device].disconnect(),
            Step::Remember { device } => self.devices[device].remember(),
            _ => self.disturb(step).await,
        }
        self.settle().await;
    }

    /// What happens to Redis and the ways to it.
    async fn disturb(&mut self, step: Step) {
        match step {
            Step::DeleteCounter { user } => {
                self.take_from(user, &["DEL", &format!("meta:{{chat:{}}}", name(user))]).await;
            }
            Step::DeleteInbox { user } => self.take_from(user, &["DEL", &inbox(user)]).await,
            Step::ExpireInbox { user } => {
                self.take_from(user, &["PEXPIRE", &inbox(user), "1"]).await;
                eventually("an inbox to expire", async || {
                    self.primary.run(&["EXISTS", &inbox(user)]).await == ":0\r\n"
                })
                .await;
            }
            Step::Flush => {
                self.store.flushed(self.now());
                self.primary.run(&["FLUSHALL"]).await;
            }
            Step::KillClients { subscribers } => {
                let kind = if subscribers { "pubsub" } else { "normal" };
                self.primary.run(&["CLIENT", "KILL", "TYPE", kind]).await;
            }
            Step::Cut { gateway } => self.relays[gateway].cut_all(),
            // It may be busy with one for its replica.
            Step::Snapshot => self.primary.until(&["SAVE"], "+OK").await,
            Step::Down => {
                self.primary.kill();
                self.up = false;
            }
            Step::Up { wait } => self.start(wait).await,
            Step::Part => {
                self.link.refuse();
                self.link.cut_all();
                self.parted = true;
            }
            Step::Promote => self.promote().await,
            other => panic!("{other:?} is no disturbance"),
        }
    }

    async fn take_from(&mut self, user: usize, command: &[&str]) {
        self.store.took(user);
        self.primary.run(command).await;
    }

    async fn start(&mut self, wait: bool) {
        self.store.restarted(self.now(), self.files == Files::EveryWrite);
        self.primary.up().await;
        self.back(wait).await;
        if !self.parted {
            in_step(&self.replica).await;
        }
    }

    async fn promote(&mut self) {
        self.store.took_all(self.now());
        self.replica.run(&["REPLICAOF", "NO", "ONE"]).await;
        for relay in &self.relays {
            relay.switch_to_port(self.replica.port());
            relay.cut_all();
        }
        let (files, link) = (self.files, &self.link);
        link.switch_to_port(self.replica.port());
        link.pass();
        link.cut_all();
        let follower = replica(files, link).await;
        self.primary = std::mem::replace(&mut self.replica, follower);
        self.parted = false;
        self.back(true).await;
    }

    /// Redis is there again: so is everything that waited for it.
    async fn back(&mut self, wait: bool) {
        self.up = true;
        if wait {
            for gateway in &self.gateways {
                ready(gateway).await;
            }
        }
        for (index, (user, id)) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            self.deliver(user, index % 2, id).await;
        }
    }

    async fn connect(&mut self, device: usize, gateway: usize, with: With) {
        let hub = hub(&self.gateways[gateway]);
        self.devices[device].connect(hub, with, &self.store).await;
    }

    async fn publish(&mut self, user: usize, gateway: usize) {
        self.sent += 1;
        let id = format!("m{}", self.sent);
        if self.up {
            self.deliver(user, gateway, id).await;
        } else {
            let refused = self.send(user, gateway, &id).await;
            assert_eq!(refused["type"], "error", "nobody can have stored it");
            self.waiting.push((user, id));
        }
    }

    /// Redis does it, and the gateway never hears of it; then the connection breaks.
    async fn unheard(&mut self, user: usize, gateway: usize) {
        self.sent += 1;
        let id = format!("m{}", self.sent);
        self.relays[gateway].drop_replies();
        let refused = self.send(user, gateway, &id).await;
        assert_eq!(refused["type"], "error", "nobody can have heard of it");
        self.relays[gateway].cut_all();
        self.relays[gateway].pass();
        self.deliver(user, gateway, id).await;
    }

    /// Sends until there is an ack, and writes it down.
    async fn deliver(&mut self, user: usize, gateway: usize, id: String) {
        let ack = within("an ack", async {
            loop {
                let answer = self.send(user, gateway, &id).await;
                if answer["type"] == "ack" {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let (now, duplicate) = (self.now(), ack["duplicate"] == true);
        self.posts[user].acked(now, &key(&id), duplicate);
        let seq = ack["seq"].as_u64().expect("a position");
        let age = self.store.age(now, user);
        if let Some(last) = self.stored.iter().rfind(|last| last.user == user) {
            let whole = self.store.is_whole(now, user, last.age);
            assert!(!whole || seq > last.seq, "{id} is at {seq}, and {} at {}", last.id, last.seq);
        }
        self.store.stored(user, seq);
        self.stored.push(Stored { user, id, seq, age });
    }

    async fn repeat(&mut self, user: usize, gateway: usize, back: usize) {
        let of_user = |stored: &&Stored| stored.user == user;
        let Some(before) = self.stored.iter().rev().filter(of_user).nth(back) else { return };
        let (id, seq, age) = (before.id.clone(), before.seq, before.age);
        let now = self.now();
        self.posts[user].repeated(now, &key(&id));
        let ack = within("an ack", async {
            loop {
                let answer = self.say(user, gateway, &id).await;
                if answer["type"] == "ack" {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let place = ack["seq"].as_u64().expect("a position");
        if ack["duplicate"] == true {
            let whole = self.store.is_whole(self.now(), user, age);
            assert!(!whole || place == seq, "{id} was at {seq}: {ack}");
        } else {
            assert!(!self.store.is_whole(self.now(), user, age), "{id} was forgotten: {ack}");
            self.posts[user].stored_again(&key(&id));
            self.store.stored(user, place);
            let age = self.store.age(self.now(), user);
            self.stored.push(Stored { user, id, seq: place, age });
        }
    }

    async fn send(&mut self, user: usize, gateway: usize, id: &str) -> Value {
        let now = self.now();
        self.posts[user].sent(now, key(id));
        self.say(user, gateway, id).await
    }

    /// Says it, and gives the ack or the error.
    async fn say(&mut self, user: usize, gateway: usize, id: &str) -> Value {
        let sender = &mut self.senders[gateway];
        sender.send(json!({"type": "message", "to": name(user), "text": id, "id": id})).await;
        loop {
            let frame = sender.hears().await;
            if frame["id"] == id {
                assert!(frame["type"] == "ack" || frame["retryable"] == true, "{frame}");
                return frame;
            }
            assert_eq!(frame["type"], "reset", "{frame}");
        }
    }

    async fn settle(&mut self) {
        if self.up {
            for device in &mut self.devices {
                device.settle(&self.posts[device.user()], &self.store).await;
            }
        }
    }

    /// Everything works again, everybody is there, and gets one message more; the accounts must be clean.
    pub(super) async fn end(mut self) {
        if !self.up {
            self.take(Step::Up { wait: true }).await;
        }
        for device in 0..DEVICES.len() {
            self.take(Step::Connect { device, gateway: device % 2, with: With::Own }).await;
        }
        for user in 0..USERS {
            self.take(Step::Publish { user, gateway: 0 }).await;
        }
        for device in &self.devices {
            let account = device.account(&self.posts[device.user()]);
            assert!(account.is_clean(), "{account:?}\n{}", account.explain());
        }
        for gateway in self.gateways {
            gateway.stop().await.unwrap();
        }
    }
}

async fn server(files: Files) -> RedisServer {
    match files {
        Files::EveryWrite => RedisServer::start().await,
        Files::Snapshots => RedisServer::start_with_snapshots().await,
    }
}

/// A replica of what `link` leads to, with all that it has by now.
async fn replica(files: Files, link: &Relay) -> RedisServer {
    let replica = server(files).await;
    replica.run(&["REPLICAOF", "127.0.0.1", &link.port().to_string()]).await;
    in_step(&replica).await;
    replica
}

async fn in_step(replica: &RedisServer) {
    replica.until(&["INFO", "replication"], "master_link_status:up").await;
}

async fn gateway(relay: &Relay) -> Gateway {
    Gateway::start(|settings| {
        settings.bus.redis.url = Some(Secret::new(format!("redis://{}", relay.address())));
        settings.bus.redis.command_timeout = COMMAND_TIMEOUT;
        settings.bus.redis.reconnect_min = Duration::from_millis(10);
        settings.bus.redis.reconnect_max = Duration::from_millis(100);
        settings.bus.inbox.max_messages = MOST.try_into().unwrap();
    })
    .await
}

fn hub(gateway: &Gateway) -> SocketAddr {
    gateway.hub("1")
}

async fn ready(gateway: &Gateway) {
    eventually("readiness", async || get(gateway.proxy(), "/ready", "").await.status == 200).await;
}

fn key(id: &str) -> Key {
    (SENDER.to_owned(), id.to_owned())
}

fn inbox(user: usize) -> String {
    format!("inbox:{{chat:{}}}", name(user))
}
