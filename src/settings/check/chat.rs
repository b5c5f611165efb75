//! Contradictions in what bears the chat: hub, API, bus.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::{Check, shown};
use crate::settings::{BusKind, RedisMode};

/// A client's frame of the longest text: every character may be escaped to six bytes, and the other fields.
const FRAME_FACTOR: usize = 6;
const FRAME_EXTRA: usize = 4 * 1024;

/// A shorter lease would take every hiccup for a death.
const LEAST_LEASE: Duration = Duration::from_secs(1);

impl Check<'_> {
    pub(super) fn hub(&mut self) {
        let hub = &self.settings.hub;
        if hub.pong_timeout >= hub.ping_interval {
            let message = format!(
                "hub.pong_timeout, {}, must be shorter than hub.ping_interval, {}",
                shown(hub.pong_timeout),
                shown(hub.ping_interval)
            );
            self.say(&["hub.pong_timeout", "hub.ping_interval"], message);
        }
        let frame = frame(hub.max_text_bytes);
        if hub.outbox_bytes.get() < frame {
            let message = format!(
                "hub.outbox_bytes, {}, must hold one frame of the longest text: with \
                 hub.max_text_bytes of {} that is {frame}",
                hub.outbox_bytes, hub.max_text_bytes
            );
            self.say(&["hub.outbox_bytes", "hub.max_text_bytes"], message);
        }
    }

    pub(super) fn api(&mut self) {
        let api = &self.settings.api;
        if api.mount.ends_with('/') {
            let message =
                "leave the last / away; write it like /api, and / alone would hide every backend";
            self.say(&["api.mount"], message.to_owned());
        }
        let max_text_bytes = self.settings.hub.max_text_bytes;
        let longest = frame(max_text_bytes);
        if api.max_body_bytes.get() < longest {
            let message = format!(
                "api.max_body_bytes, {}, must hold one message of the longest text: with \
                 hub.max_text_bytes of {max_text_bytes} that is {longest}",
                api.max_body_bytes
            );
            self.say(&["api.max_body_bytes", "hub.max_text_bytes"], message);
        }
        if api.max_buffered_bytes < api.max_body_bytes {
            let message = format!(
                "api.max_buffered_bytes, {}, must hold one body of api.max_body_bytes, {}",
                api.max_buffered_bytes, api.max_body_bytes
            );
            self.say(&["api.max_buffered_bytes", "api.max_body_bytes"], message);
        }
    }

    pub(super) fn bus(&mut self) {
        let bus = &self.settings.bus;
        let max_text_bytes = self.settings.hub.max_text_bytes;
        let frame = frame(max_text_bytes);
        if !bus.wants_redis() && bus.inbox.max_total_bytes.get() < frame {
            let message = format!(
                "bus.inbox.max_total_bytes, {}, must hold one frame of the longest text: with \
                 hub.max_text_bytes of {max_text_bytes} that is {frame}",
                bus.inbox.max_total_bytes
            );
            self.say(&["bus.inbox.max_total_bytes", "hub.max_text_bytes"], message);
        }
        let redis = &bus.redis;
        if bus.kind == BusKind::Redis && !redis.names_a_server() {
            let message = "the bus is redis, but no server is named; set REDIS_URL or REDIS_HOST";
            let keys = ["bus.kind", "bus.redis.host", "bus.redis.nodes", "bus.redis.url"];
            self.say(&keys, message.to_owned());
        }
        self.redis_place();
        let least = LEAST_LEASE.max(redis.command_timeout + redis.reconnect_max);
        if bus.wants_redis() && bus.lease < least {
            let message = format!(
                "bus.lease, {}, must be at least {}: a second, and long enough for a command to fail and be sent \
                 again (bus.redis.command_timeout and bus.redis.reconnect_max together)",
                shown(bus.lease),
                shown(least)
            );
            let keys = ["bus.lease", "bus.redis.command_timeout", "bus.redis.reconnect_max"];
            self.say(&keys, message);
        }
        if redis.reconnect_min > redis.reconnect_max {
            let message = format!(
                "bus.redis.reconnect_min, {}, must not be longer than bus.redis.reconnect_max, {}",
                shown(redis.reconnect_min),
                shown(redis.reconnect_max)
            );
            self.say(&["bus.redis.reconnect_min", "bus.redis.reconnect_max"], message);
        }
    }

    /// Whether mode, servers and TLS go together.
    fn redis_place(&mut self) {
        let redis = &self.settings.bus.redis;
        if redis.host.is_some() && !redis.nodes.is_empty() && redis.url.is_none() {
            let message = "both bus.redis.host and bus.redis.nodes name servers; set one of them";
            self.say(&["bus.redis.nodes", "bus.redis.host"], message.to_owned());
        }
        let place = match redis.place() {
            Ok(place) => place,
            // What is wrong with the URL alone was said where it was read.
            Err(_) if redis.url.is_some() => return,
            Err(why) => {
                let keys = ["bus.redis.mode", "bus.redis.sentinel_master", "bus.redis.nodes"];
                return self.say(&keys, why);
            }
        };
        if redis.mode != RedisMode::Auto && redis.mode != place.mode {
            let message = format!(
                "the mode is {}, but {} is that of {}; leave the mode out, or change the URL",
                redis.mode.name(),
                self.with_source("bus.redis.url"),
                place.mode.name()
            );
            self.say(&["bus.redis.mode", "bus.redis.url"], message);
        }
        let files = [&redis.tls_ca, &redis.tls_cert, &redis.tls_key];
        if !place.tls && files.iter().any(|file| file.is_some()) {
            let message = "TLS is not on, so that its files have no use; write rediss:// in the URL, or set \
                           bus.redis.tls";
            let keys =
                ["bus.redis.tls", "bus.redis.tls_ca", "bus.redis.tls_cert", "bus.redis.tls_key"];
            self.say(&[&keys[..], &["bus.redis.url"]].concat(), message.to_owned());
        } else if redis.tls_cert.is_some() != redis.tls_key.is_some() {
            let message = "a certificate and its key go together; set both tls_cert and tls_key";
            self.say(&["bus.redis.tls_cert", "bus.redis.tls_key"], message.to_owned());
        }
    }
}

/// Bytes of one frame of the longest text.
fn frame(max_text_bytes: NonZeroUsize) -> usize {
    max_text_bytes.get().saturating_mul(FRAME_FACTOR).saturating_add(FRAME_EXTRA)
}
