//! Events that all processes count together, in Redis.
//!
//! A key holds the moment up to which events are booked, in microseconds of the server's clock, and is gone when that has
//! passed. One script looks and books.
//!
//! Invariants: what is asked at once has a bound of its own, so that a flood of requests crowds out no message; nothing
//! waits while Redis is away.

use std::time::Duration;

use fred::types::{Key, Value};
use tokio::sync::Semaphore;

use super::commands::{nonsense, overloaded, positive};
use super::{RedisBus, Way, cluster, names};
use crate::bus::BusError;
use crate::bus::draw::Draw;
use crate::rate::Drawn;

/// Questions that may be unanswered at once; more are not asked.
const IN_FLIGHT: usize = 1_024;

/// `KEYS`: the one. `ARGV`: what an event books, and how far bookings may run ahead, in microseconds. Answers whether it
/// is booked, and how far they run ahead then.
///
/// More than the rate could have booked is left from another rate, or from another server's clock, and locks nobody out.
pub(super) const TAKE: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, ahead = tonumber(ARGV[1]), tonumber(ARGV[2])
local booked = tonumber(redis.call('GET', KEYS[1]) or '0')
booked = math.min(booked, now + ahead + interval)
if booked > now + ahead then
  return {0, booked - now}
end
booked = math.max(booked, now) + interval
redis.call('SET', KEYS[1], string.format('%.0f', booked), 'PX', math.ceil((booked - now) / 1000))
return {1, booked - now}
";

/// What bounds the questions.
pub(super) fn turns() -> Semaphore {
    Semaphore::new(IN_FLIGHT)
}

impl RedisBus {
    pub(in crate::bus) async fn take(&self, draw: Draw<'_>) -> Result<Drawn, BusError> {
        let _one = self.draws.try_acquire().map_err(|_full| overloaded())?;
        let tag = [draw.limit, ":", draw.key].concat();
        let key = names::limit(&tag);
        let mut way = self.way_of_tag(&tag);
        loop {
            let shard = way.shard()?;
            let commands = &shard.commands;
            let keys = vec![Key::from(key.as_str())];
            let values = [draw.rate.interval(), draw.rate.ahead()];
            let values = values.map(|time| Value::from(microseconds(time))).to_vec();
            let result = commands.link()?.run(&commands.scripts.take, keys, values).await;
            if let Some(result) = way.done(result).await {
                return read(&result?);
            }
        }
    }

    /// The way to the shard of keys with `{tag}` in their names.
    fn way_of_tag(&self, tag: &str) -> Way<'_> {
        match &self.topology {
            super::Topology::One(shard, _) => Way::One(shard),
            super::Topology::Cluster(cluster) => {
                Way::Cluster(cluster::Way::to(cluster, cluster::slots::of_tag(tag)))
            }
        }
    }
}

/// At least one, where it is anything: bookings must run ahead.
fn microseconds(time: Duration) -> String {
    time.as_nanos().div_ceil(1_000).to_string()
}

fn read(answer: &[Value]) -> Result<Drawn, BusError> {
    let [granted, ahead] = answer else { return Err(nonsense()) };
    Ok(Drawn { granted: positive(granted)? == 1, ahead: Duration::from_micros(positive(ahead)?) })
}
