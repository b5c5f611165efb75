//! The scripts that run in Redis: each is one atomic step on the keys of one user.
//!
//! Invariants: positions count up by one, and an entry's position follows from where it stands in the
//! list: the last one has the counter's. A list without its counter belongs to a history that is gone, and
//! is deleted before the counter starts again.

use std::time::Duration;

use crate::settings::InboxSettings;

/// One script: its text as the server gets it, and the hash it is called by.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) text: String,
    pub(super) hash: String,
}

impl Script {
    pub(super) fn new(text: &str) -> Self {
        Self { hash: fred::util::sha1_hash(text), text: text.to_owned() }
    }
}

/// Every script; a connection loads them all before it is used.
#[derive(Clone, Debug)]
pub(super) struct Scripts {
    pub(super) publish: Script,
    pub(super) read: Script,
    pub(super) probe: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self { publish: Script::new(PUBLISH), read: Script::new(READ), probe: Script::new(PROBE) }
    }

    pub(super) fn all(&self) -> [&Script; 3] {
        [&self.publish, &self.read, &self.probe]
    }
}

/// How long a user's counter is kept after his last message or visit: much longer than his messages, so that
/// who comes back late learns what he missed instead of meeting a new history.
const META: Duration = Duration::from_hours(30 * 24);

/// `KEYS`: meta, inbox, seen. `ARGV`: head, tail, when, channel, fresh epoch, most messages, and the lives
/// of inbox, meta and seen in milliseconds. Answers position, when, whether it is a repeat.
const PUBLISH: &str = r"
local seen = redis.call('GET', KEYS[3])
if seen then
  local seq, at = string.match(seen, '^(%d+) (%d+)$')
  return {tonumber(seq), tonumber(at), 1}
end
if redis.call('HSETNX', KEYS[1], 'epoch', ARGV[5]) == 1 then
  redis.call('DEL', KEYS[2])
end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
local digits = string.format('%.0f', seq)
local payload = ARGV[1] .. digits .. ARGV[2]
local most = tonumber(ARGV[6])
if redis.call('RPUSH', KEYS[2], payload) > most then
  redis.call('LTRIM', KEYS[2], -most, -1)
end
redis.call('PEXPIRE', KEYS[2], ARGV[7])
redis.call('PEXPIRE', KEYS[1], ARGV[8])
redis.call('SET', KEYS[3], digits .. ' ' .. ARGV[3], 'PX', ARGV[9])
redis.call('PUBLISH', ARGV[4], payload)
return {seq, tonumber(ARGV[3]), 0}
";

/// `KEYS`: meta, inbox. `ARGV`: after, fresh epoch, the life of meta in milliseconds. Answers epoch, the last
/// position, and the entries after the one asked for. Somebody without a history gets one, so that
/// he has something to come back with.
const READ: &str = r"
if redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2]) == 1 then
  redis.call('DEL', KEYS[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
local top = tonumber(meta[2] or '0')
local missing = top - tonumber(ARGV[1])
if missing <= 0 then
  return {meta[1], top, {}}
end
return {meta[1], top, redis.call('LRANGE', KEYS[2], -missing, -1)}
";

/// `KEYS`: the probe's. `ARGV`: its channel, its number, its life in milliseconds. It writes, so that a server
/// which takes no writes (a replica, one that is full) does not pass for one that works.
const PROBE: &str = r"
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return {}
";

/// The bounds of an inbox, as the scripts take them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) most: i64,
    pub(super) inbox_ms: i64,
    pub(super) meta_ms: i64,
    pub(super) seen_ms: i64,
}

impl Bounds {
    pub(super) fn new(settings: &InboxSettings) -> Self {
        // Redis takes no life of nothing; the least there is comes to the same.
        let ms = |life: Duration| i64::try_from(life.as_millis()).unwrap_or(i64::MAX / 2).max(1);
        let meta = META.max(settings.max_age * 2).max(settings.dedupe_window * 2);
        Self {
            most: i64::try_from(settings.max_messages.get()).unwrap_or(i64::MAX),
            inbox_ms: ms(settings.max_age),
            meta_ms: ms(meta),
            seen_ms: ms(settings.dedupe_window),
        }
    }
}
