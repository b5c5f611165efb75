//! The scripts that run in Redis: each is one atomic step on the keys of one user.
//!
//! Invariants: positions count up by one, and an entry's position follows from where it stands in the
//! list: the last one has the counter's. A counter has a *birth*, random text that it is born with; a list or a
//! receipt without its counter belongs to a history that is gone. An epoch is the birth and the line
//! of the server (see `lineage`), so that it changes with either.

use std::time::Duration;

use super::draws::TAKE;
use super::seat_script::SeatScripts;
use crate::settings::InboxSettings;

/// One script: its text as the server gets it, and the hash it is called by.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) text: String,
    pub(super) hash: String,
}

impl Script {
    /// In a Cluster, channels are published on within their slot alone.
    pub(super) fn new(text: &str, cluster: bool) -> Self {
        let text = if cluster { text.replace("'PUBLISH'", "'SPUBLISH'") } else { text.to_owned() };
        Self { hash: fred::util::sha1_hash(&text), text }
    }
}

/// Every script; a connection loads them all before it is used.
#[derive(Clone, Debug)]
pub(super) struct Scripts {
    pub(super) publish: Script,
    pub(super) read: Script,
    pub(super) probe: Script,
    pub(super) settle: Script,
    pub(super) take: Script,
    pub(super) presence: SeatScripts,
}

impl Scripts {
    pub(super) fn new(cluster: bool) -> Self {
        let script = |text| Script::new(text, cluster);
        Self {
            publish: script(PUBLISH),
            read: script(READ),
            probe: script(PROBE),
            settle: script(SETTLE),
            take: script(TAKE),
            presence: SeatScripts::new(cluster),
        }
    }

    pub(super) fn all(&self) -> [&Script; 8] {
        let SeatScripts { seats, beat, bury } = &self.presence;
        [&self.publish, &self.read, &self.probe, &self.settle, &self.take, seats, beat, bury]
    }
}

/// How long a user's counter is kept after his last message or visit: much longer than his messages, so that
/// who comes back late learns what he missed instead of meeting a new history.
const META: Duration = Duration::from_hours(30 * 24);

/// How long a probe stays: it tells after a restart whether the server lost its last second, so it must outlive
/// one that takes long.
pub(super) const PROBE_LIFE: Duration = Duration::from_hours(1);

/// Begins every script that answers for a user's history: where the server is not the one whose line was
/// settled, nothing is done and nothing is answered. `INFO` costs the server some microseconds.
macro_rules! fenced {
    ($fence:literal, $body:literal) => {
        concat!(
            "if ",
            $fence,
            " ~= '' and not string.find(redis.call('INFO', 'replication'), ",
            $fence,
            ", 1, true) then return redis.error_reply('",
            "FENCED the server has another history than when it was looked at') end\n",
            $body
        )
    };
}

/// `KEYS`: meta, inbox, seen. `ARGV`: fence, head, tail, when, channel, fresh birth, most messages, and the
/// lives of inbox, meta and seen in milliseconds. Answers position, when, whether it is a repeat, and the birth.
///
/// A receipt names the birth of the counter that it belongs to: one that outlived its counter says nothing.
const PUBLISH: &str = fenced!(
    "ARGV[1]",
    r"
local birth = redis.call('HGET', KEYS[1], 'birth')
if birth then
  local seen = redis.call('GET', KEYS[3])
  if seen then
    local seq, at, of = string.match(seen, '^(%d+) (%d+) (%w+)$')
    if of == birth then
      return {tonumber(seq), tonumber(at), 1, birth}
    end
  end
else
  birth = ARGV[6]
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'birth', birth)
end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
local digits = string.format('%.0f', seq)
local payload = ARGV[2] .. digits .. ARGV[3]
local most = tonumber(ARGV[7])
if redis.call('RPUSH', KEYS[2], payload) > most then
  redis.call('LTRIM', KEYS[2], -most, -1)
end
redis.call('PEXPIRE', KEYS[2], ARGV[8])
redis.call('PEXPIRE', KEYS[1], ARGV[9])
redis.call('SET', KEYS[3], digits .. ' ' .. ARGV[4] .. ' ' .. birth, 'PX', ARGV[10])
redis.call('PUBLISH', ARGV[5], payload)
return {seq, tonumber(ARGV[4]), 0, birth}
"
);

/// `KEYS`: meta, inbox. `ARGV`: fence, after, fresh birth, the life of meta in milliseconds. Answers the birth, the
/// last position, and the entries after the one asked for. Somebody without a history gets one, so that
/// he has something to come back with.
const READ: &str = fenced!(
    "ARGV[1]",
    r"
local meta = redis.call('HMGET', KEYS[1], 'birth', 'seq')
if not meta[1] then
  meta = {ARGV[3], '0'}
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'birth', ARGV[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local top = tonumber(meta[2] or '0')
local missing = top - tonumber(ARGV[2])
if missing <= 0 then
  return {meta[1], top, {}}
end
return {meta[1], top, redis.call('LRANGE', KEYS[2], -missing, -1)}
"
);

/// `KEYS`: the probe's, and the lineage. `ARGV`: fence, its channel, its number, its life, the line (or nothing),
/// and the life of the lineage; lives in milliseconds. It writes, so that a server which takes no writes (a replica,
/// one that is full) does not pass for one that works; and it finds out when another process broke the line.
const PROBE: &str = fenced!(
    "ARGV[1]",
    r"
if ARGV[5] ~= '' then
  if redis.call('HGET', KEYS[2], 'line') ~= ARGV[5] then
    return redis.error_reply('FENCED the history was declared broken')
  end
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return {}
"
);

/// `KEYS`: the lineage. `ARGV`: fence, the line and the replication id as they were read (or nothing), then line,
/// replication id and process id as they are to be, and the life in milliseconds. Answers 1, or 0 where
/// somebody else was first or the server is another one by now.
const SETTLE: &str = r"
if ARGV[1] ~= '' then
  local info = redis.pcall('INFO', 'replication')
  if type(info) == 'table' then
    return redis.error_reply('NOINFO ' .. tostring(info.err))
  end
  if not string.find(info, ARGV[1], 1, true) then
    return 0
  end
end
local now = redis.call('HMGET', KEYS[1], 'line', 'replid')
if (now[1] or '') ~= ARGV[2] or (now[2] or '') ~= ARGV[3] then
  return 0
end
redis.call('HSET', KEYS[1], 'line', ARGV[4], 'replid', ARGV[5], 'run_id', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
return 1
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
        let meta = META.max(settings.max_age * 2).max(settings.dedupe_window * 2);
        Self {
            most: i64::try_from(settings.max_messages.get()).unwrap_or(i64::MAX),
            inbox_ms: ms(settings.max_age),
            meta_ms: ms(meta),
            seen_ms: ms(settings.dedupe_window),
        }
    }
}

/// A life in Redis's milliseconds. It takes no life of nothing; the least there is comes to the same.
pub(super) fn ms(life: Duration) -> i64 {
    i64::try_from(life.as_millis()).unwrap_or(i64::MAX / 2).max(1)
}
