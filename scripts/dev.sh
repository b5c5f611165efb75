#!/usr/bin/env bash
# Builds the gateway and starts everything in one process: proxy, demo backends, two hubs, admin.
#   scripts/dev.sh            on the embedded bus
#   scripts/dev.sh --redis    on a redis-server of its own (installed from Debian's packages where missing)
# Everything after these is handed to the binary, e.g. scripts/dev.sh --set hub.ping_interval=10s
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

redis_pid=
redis_dir=
stop_redis() {
  if [ -n "$redis_pid" ]; then kill "$redis_pid" 2>/dev/null || true; wait "$redis_pid" 2>/dev/null || true; fi
  if [ -n "$redis_dir" ]; then rm -rf "$redis_dir"; fi
}

with_redis=no
if [ "${1:-}" = --redis ]; then with_redis=yes; shift; fi

command -v cargo >/dev/null || { echo "cargo is missing: install Rust with rustup first" >&2; exit 1; }
# Unoptimised, because it is there in a minute; what you deploy is `cargo build --release`.
cargo build --locked --bin meridian

if [ "$with_redis" = yes ]; then
  . scripts/lib.sh
  need_packages redis-server:redis-server
  port=${REDIS_PORT:-6379}
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "port $port is in use: redis-server cannot listen on it; set REDIS_PORT to a free port" >&2
    exit 1
  fi
  redis_dir=$(mktemp -d)
  trap stop_redis EXIT
  # In a process group of its own, so that Ctrl-C reaches the gateway alone and the sockets drain first.
  setsid redis-server --bind 127.0.0.1 --port "$port" --dir "$redis_dir" --appendonly yes --save '' \
    --logfile "$redis_dir/redis.log" &
  redis_pid=$!
  for _ in $(seq 100); do
    [ "$(redis-cli -p "$port" ping 2>/dev/null)" = PONG ] && break
    kill -0 "$redis_pid" 2>/dev/null || { cat "$redis_dir/redis.log" >&2; exit 1; }
    sleep 0.1
  done
  echo "redis-server listens on 127.0.0.1:$port"
  export REDIS_HOST=127.0.0.1 REDIS_PORT=$port
  # Ctrl-C and TERM go on to the gateway, once (a second one would cut its drain short, and so the terminal must
  # not reach it too); this script waits for its clean end, and then stops Redis.
  status=0
  setsid target/debug/meridian serve "$@" &
  gateway=$!
  trap 'kill -TERM "$gateway" 2>/dev/null || true' TERM
  trap 'kill -INT "$gateway" 2>/dev/null || true' INT
  while kill -0 "$gateway" 2>/dev/null; do wait "$gateway" && status=0 || status=$?; done
  exit "$status"
fi
exec target/debug/meridian serve "$@"
