//! The scripts of seats and nodes, what they take, and what they answer.
//!
//! Walk: [`Step`] is one step on the seats of one user: some are given back, those of dead nodes are dropped, some are
//! taken or said again; with nothing of that it is a question. [`View`] is what a beat of a node brings back.
//!
//! Invariants: every time is the server's, so that nodes need no common clock; a step is atomic, and tells whoever
//! watches the user where it made him come or leave.

use std::time::Duration;

use fred::types::{Key, Value};

use super::names;
use super::script::Script;
use crate::bus::BusError;
use crate::settings::OverLimit;

/// A user's seats outlive this only where a node says them again, which it does several times in it.
pub(super) const SEATS_LIFE: Duration = Duration::from_hours(24);

/// How long it is known when a user was last seen.
const LAST_SEEN_LIFE: Duration = Duration::from_hours(30 * 24);

/// How long it is known of a node that it is gone. Later it is as one that never was, which comes to the same.
const GRAVE_LIFE: Duration = Duration::from_hours(1);

/// Begins an eviction on a user's signal channel; no frame begins so.
pub(super) const EVICT: &[u8] = b"!evict ";

/// `KEYS`: seats, last seen. `ARGV`: most, what becomes of one more, how, the lives of both keys, the channels of
/// signals and presence, dead nodes with their last beats, seats given back, and seats with when they were opened (0:
/// now), each list behind its length. Answers the time, how many seats there are, when the user was last seen, whether
/// there are too many, who was refused, who was evicted, and the nodes of the rest.
///
/// `how`: `ask` takes nothing where there would be too many, so that the caller may look for dead nodes first; `hold`
/// keeps to the limit; `add` does not.
const SEATS: &str = r"
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local key, last_key = KEYS[1], KEYS[2]
local most, over, how = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local at = 8
local function list(width)
  local found = {}
  local count = tonumber(ARGV[at])
  for index = 0, count - 1 do
    found[#found + 1] = {ARGV[at + 1 + index * width], tonumber(ARGV[at + 2 + index * width])}
  end
  at = at + 1 + count * width
  return found
end
local dead, given_back, wanted = list(2), list(1), list(2)
local before = redis.call('ZCARD', key)
local seen = 0
for _, seat in ipairs(given_back) do
  if redis.call('ZREM', key, seat[1]) == 1 then seen = now end
end
local freed = 0
if #dead > 0 then
  local beats = {}
  for _, node in ipairs(dead) do beats[node[1]] = node[2] end
  local seats = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for index = 1, #seats, 2 do
    local beat = beats[string.match(seats[index], '^[^.]+')]
    if beat then
      redis.call('ZREM', key, seats[index])
      freed = freed + 1
      seen = math.max(seen, beat, tonumber(seats[index + 1]))
    end
  end
end
local count = redis.call('ZCARD', key)
local new = {}
for _, seat in ipairs(wanted) do
  if not redis.call('ZSCORE', key, seat[1]) then new[#new + 1] = seat end
end
local too_many = count + #new > most
local refused, evicted = {}, {}
if not (too_many and how == 'ask') then
  for _, seat in ipairs(new) do
    if how ~= 'add' and over == 'refuse' and count >= most then
      refused[#refused + 1] = seat[1]
    else
      local opened = seat[2]
      if opened == 0 then
        -- After every other one, also within a millisecond, so that it is not the oldest.
        local newest = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
        opened = math.max(now, (tonumber(newest[2] or '0')) + 1)
      end
      redis.call('ZADD', key, string.format('%.0f', opened), seat[1])
      count = count + 1
    end
  end
  if how == 'hold' and count > most then
    local verb = 'ZPOPMIN'
    if over == 'refuse' then verb = 'ZPOPMAX' end
    local popped = redis.call(verb, key, count - most)
    for index = 1, #popped, 2 do
      evicted[#evicted + 1] = popped[index]
      redis.call('PUBLISH', ARGV[6], '!evict ' .. popped[index])
    end
    count = most
  end
end
if count > 0 and #wanted > 0 then
  redis.call('PEXPIRE', key, ARGV[4])
end
local last = tonumber(redis.call('GET', last_key) or '0')
if count == 0 and before > 0 then
  last = math.max(last, seen)
  redis.call('SET', last_key, string.format('%.0f', last), 'PX', ARGV[5])
end
if (count > 0) ~= (before > 0) then
  redis.call('PUBLISH', ARGV[7], count > 0 and '1' or '0')
end
local nodes, known = {}, {}
local newest = 63
if too_many then newest = -1 end
for _, seat in ipairs(redis.call('ZREVRANGE', key, 0, newest)) do
  local node = string.match(seat, '^[^.]+')
  if not known[node] then
    known[node] = true
    nodes[#nodes + 1] = node
  end
end
return {now, count, last, too_many and 1 or 0, freed, refused, evicted, nodes}
";

/// `KEYS`: nodes alive, nodes gone. `ARGV`: node, life of a grave. Answers the time, whether the node was not known,
/// whether it is taken for dead, and both sets with the last beats. Whoever has a grave does not live again: others may
/// free its seats at any moment.
const BEAT: &str = r"
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local new, buried = 0, 0
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  buried = 1
else
  new = redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now - tonumber(ARGV[2])))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local alive = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
return {now, new, buried, alive, redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')}
";

/// `KEYS`: nodes alive, nodes gone. `ARGV`: node, its last beat as the caller knows it, life of a grave. Answers
/// whether it is gone: not where it has beaten since.
const BURY: &str = r"
local beat = redis.call('ZSCORE', KEYS[1], ARGV[1])
if beat and tonumber(beat) > tonumber(ARGV[2]) then
  return {0}
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return {1}
";

/// The scripts of this file.
#[derive(Clone, Debug)]
pub(super) struct SeatScripts {
    pub(super) seats: Script,
    pub(super) beat: Script,
    pub(super) bury: Script,
}

impl SeatScripts {
    pub(super) fn new(cluster: bool) -> Self {
        let script = |text| Script::new(text, cluster);
        Self { seats: script(SEATS), beat: script(BEAT), bury: script(BURY) }
    }
}

/// What a step does where there would be too many seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Takes none, and says so.
    Ask,
    /// Keeps to the limit.
    Hold,
    /// Takes them all.
    Add,
}

/// A node that is gone, and when it was last heard of, in the server's milliseconds; 0 where nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) node: String,
    pub(super) beat: u64,
}

/// One step on the seats of one user.
pub(super) struct Step<'a> {
    pub(super) user: &'a str,
    pub(super) most: usize,
    pub(super) over: OverLimit,
    pub(super) how: How,
    pub(super) dead: &'a [Dead],
    /// Seats given back, as `<node>.<number>`.
    pub(super) given_back: &'a [String],
    /// Seats taken or said again, and when they were opened; 0 for now.
    pub(super) wanted: &'a [(String, u64)],
}

impl<'a> Step<'a> {
    /// Changes nothing but what is `dead`.
    pub(super) fn question(user: &'a str, dead: &'a [Dead]) -> Self {
        Self {
            user,
            most: usize::MAX,
            over: OverLimit::Refuse,
            how: How::Add,
            dead,
            given_back: &[],
            wanted: &[],
        }
    }

    /// As the script takes it.
    pub(super) fn arguments(&self) -> (Vec<Key>, Vec<Value>) {
        let keys = vec![Key::from(names::seats(self.user)), Key::from(names::last(self.user))];
        let number = |number: u64| Value::from(number.to_string());
        let count = |count: usize| number(u64::try_from(count).unwrap_or(u64::MAX));
        let ms = |life: Duration| number(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
        let mut values = vec![
            count(self.most),
            Value::from(match self.over {
                OverLimit::Refuse => "refuse",
                OverLimit::CloseOldest => "close-oldest",
            }),
            Value::from(match self.how {
                How::Ask => "ask",
                How::Hold => "hold",
                How::Add => "add",
            }),
            ms(SEATS_LIFE),
            ms(LAST_SEEN_LIFE),
            Value::from(names::signals(self.user)),
            Value::from(names::presence(self.user)),
            count(self.dead.len()),
        ];
        for Dead { node, beat } in self.dead {
            values.extend([Value::from(node.as_str()), number(*beat)]);
        }
        values.push(count(self.given_back.len()));
        values.extend(self.given_back.iter().map(|seat| Value::from(seat.as_str())));
        values.push(count(self.wanted.len()));
        for (seat, opened) in self.wanted {
            values.extend([Value::from(seat.as_str()), number(*opened)]);
        }
        (keys, values)
    }
}

/// How a user's seats stand after a [`Step`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// In the server's milliseconds since the Unix epoch.
    pub(super) now: u64,
    pub(super) seats: u64,
    pub(super) last_seen: Option<u64>,
    pub(super) too_many: bool,
    /// Seats of dead nodes that were dropped.
    pub(super) freed: u64,
    pub(super) refused: Vec<String>,
    pub(super) evicted: Vec<String>,
    /// Of the newest seats; of all, where there are too many.
    pub(super) nodes: Vec<String>,
}

impl Standing {
    pub(super) fn read(answer: Vec<Value>) -> Result<Self, BusError> {
        let Ok([now, seats, last, too_many, freed, refused, evicted, nodes]) =
            <[Value; 8]>::try_from(answer)
        else {
            return Err(super::commands::nonsense());
        };
        let number = super::commands::positive;
        let texts = |value: Value| -> Vec<String> {
            value.into_array().into_iter().filter_map(Value::into_string).collect()
        };
        Ok(Self {
            now: number(&now)?,
            seats: number(&seats)?,
            last_seen: Some(number(&last)?).filter(|last| *last > 0),
            too_many: number(&too_many)? == 1,
            freed: number(&freed)?,
            refused: texts(refused),
            evicted: texts(evicted),
            nodes: texts(nodes),
        })
    }
}

/// The arguments of a beat of `node`.
pub(super) fn beat(node: &str) -> (Vec<Key>, Vec<Value>) {
    (node_keys(), vec![Value::from(node), grave_life()])
}

/// The arguments by which `dead` is said to be gone, unless it has beaten since.
pub(super) fn bury(dead: &Dead) -> (Vec<Key>, Vec<Value>) {
    let beat = Value::from(dead.beat.to_string());
    (node_keys(), vec![Value::from(dead.node.as_str()), beat, grave_life()])
}

fn node_keys() -> Vec<Key> {
    vec![Key::from(names::NODES_ALIVE), Key::from(names::NODES_GONE)]
}

fn grave_life() -> Value {
    Value::from(GRAVE_LIFE.as_millis().to_string())
}

/// What a beat brings back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// In the server's milliseconds since the Unix epoch.
    pub(super) now: u64,
    /// This node was not known, as at its first beat.
    pub(super) new: bool,
    /// This node is taken for dead.
    pub(super) buried: bool,
    /// Every node and its last beat, this one too.
    pub(super) alive: Vec<(String, u64)>,
    pub(super) gone: Vec<(String, u64)>,
}

impl View {
    pub(super) fn read(answer: Vec<Value>) -> Result<Self, BusError> {
        let Ok([now, new, buried, alive, gone]) = <[Value; 5]>::try_from(answer) else {
            return Err(super::commands::nonsense());
        };
        let number = super::commands::positive;
        Ok(Self {
            now: number(&now)?,
            new: number(&new)? == 1,
            buried: number(&buried)? == 1,
            alive: scores(alive),
            gone: scores(gone),
        })
    }
}

/// Members and their scores, which alternate.
fn scores(value: Value) -> Vec<(String, u64)> {
    let mut values = value.into_array().into_iter();
    let pair = || {
        let (member, score) = (values.next()?, values.next()?);
        Some((member.into_string()?, score.as_u64()?))
    };
    std::iter::from_fn(pair).collect()
}
