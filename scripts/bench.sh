#!/usr/bin/env bash
# Side by side with nginx, HAProxy and Nchan, on loopback, each server on one core.
#   scripts/bench.sh http     requests a second, small and large answers: meridian, nginx, HAProxy; and meridian and nginx with
#                             health checks, retries, limits, security headers and an access log (`configured`, `nginx_configured`)
#   scripts/bench.sh chat     messages a processor second over one Redis: meridian, nginx with Nchan
#   scripts/bench.sh idle     resident bytes an idle WebSocket: meridian, nginx with Nchan
#   scripts/bench.sh cost     what a message, a user and an idle hub cost Redis, against plain PUBLISH
#
# The server under test has core 0 for itself; load, backend and Redis share core 1. Runs are interleaved
# (A B C A B C …) and medians reported, also of the rounds' ratios, since what else the machine does comes and goes. Where the load could not
# fill core 0, the ratio is of work done a processor second, which is what a core is worth; the table says which.
#
# Environment: SERVERS='meridian nginx' (a choice), ROUNDS=7, SECONDS_EACH=3, MERIDIAN and LOAD=paths of binaries (else they
# are built), BENCH_DIR=directory to keep (else a temporary one).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

what=${1:-}
rounds=${ROUNDS:-7}
seconds=${SECONDS_EACH:-3}
server_core=0
load_core=1

dir=${BENCH_DIR:-$(mktemp -d)}
mkdir -p "$dir"
# nginx started by root reads its files as another user.
chmod 755 "$dir"
declare -A pids=()
clean_up() {
  local pid
  for pid in "${!pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${!pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  [ -n "${BENCH_DIR:-}" ] || rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

die() { echo "bench: $*" >&2; exit 1; }

# free_port - sets `port`: unused, below the range that outgoing connections take theirs from.
next_port=$((20000 + RANDOM % 8000))
free_port() {
  while next_port=$((next_port + 1)); (exec 3<>"/dev/tcp/127.0.0.1/$next_port") 2>/dev/null; do :; done
  port=$next_port
}

# start CORE NAME COMMAND… - starts COMMAND pinned to CORE, its output in NAME.log; sets `pid`.
start() {
  local core=$1 name=$2
  shift 2
  taskset -c "$core" "$@" >"$dir/$name.log" 2>&1 &
  pid=$!
  pids[$pid]=$name
}

# stop PID - ends a process that `start` began.
stop() {
  kill "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
  # Its number may soon be another's, who must not be killed in the end.
  unset "pids[$1]"
}

# await_port PORT NAME PID - returns when PORT accepts; says what NAME logged when it does not.
await_port() {
  for _ in $(seq 100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return 0
    kill -0 "$3" 2>/dev/null || break
    sleep 0.1
  done
  cat "$dir/$2.log" >&2
  die "$2 does not listen on $1"
}

# nginx_worker PID - the one worker of the master PID, which does the work.
nginx_worker() { tr -d ' ' <"/proc/$1/task/$1/children"; }

# ticks PID - processor time so far, user and kernel, in hundredths of a second.
ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }

# middle - the median of the numbers on standard input.
middle() { sort -g | awk '{ v[NR] = $1 } END { printf "%.12g\n", (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }

# median FILE COLUMN - of the lines in FILE, one a round.
median() { awk -v c="$2" '{ print $c }' "$1" | middle; }

# ratio FILE FILE COLUMN - the median of the rounds' own ratios: what slows a whole round down cancels out.
ratio() { paste -d ' ' <(awk -v c="$3" '{ print $c }' "$1") <(awk -v c="$3" '{ print $c }' "$2") | awk '{ print $1 / $2 }' | middle; }

# value KEY LINE - of a line of key=value words.
value() { sed -n "s/.*\b$1=\([^ ]*\).*/\1/p" <<<"$2"; }

build() {
  if { has meridian || has configured; } && [ -z "${MERIDIAN:-}" ]; then
    command -v cargo >/dev/null || die "cargo is missing: install Rust with rustup first"
    cargo build --release --locked --bin meridian
    MERIDIAN=target/release/meridian
  fi
  [ "$what" = http ] && return 0
  load=${LOAD:-}
  [ -n "$load" ] || load=$(cargo build --profile load --locked --bench load --message-format=json-render-diagnostics |
    sed -n 's/.*"name":"load".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
  [ -x "$load" ] || die "the load generator was not built"
}

# has SERVER - whether SERVER takes part.
has() { case " $servers " in *" $1 "*) return 0 ;; *) return 1 ;; esac }

# start_meridian EXTRA… - with the configuration in $dir/meridian; sets `pid`.
start_meridian() { start_meridian_as meridian "$@"; }

# start_meridian_as NAME EXTRA… - the same with the configuration in $dir/NAME.
start_meridian_as() {
  local name=$1
  shift
  # A run's own environment and .env must not change what is measured.
  start "$server_core" "$name" env -i -C "$dir/$name" "$(realpath "$MERIDIAN")" serve --config "$dir/$name" "$@"
}

nginx_head() {
  # $1 name, $2 connections, $3 further lines of the top level
  cat <<CONF
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid $dir/$1.pid; error_log $dir/$1.error.log warn; $3
events { worker_connections $2; }
http {
  access_log off; keepalive_requests 1000000000; client_body_temp_path $dir/$1.body; proxy_temp_path $dir/$1.proxy;
  fastcgi_temp_path $dir/$1.fastcgi; uwsgi_temp_path $dir/$1.uwsgi; scgi_temp_path $dir/$1.scgi;
CONF
}

. scripts/bench/http.sh
. scripts/bench/chat.sh
. scripts/bench/idle.sh
. scripts/bench/cost.sh

[ "$(nproc)" -ge 2 ] || die "two cores are needed: one for the server, one for the load"
case $what in
  http) servers=${SERVERS:-meridian nginx haproxy configured nginx_configured} ;;
  chat | idle) servers=${SERVERS:-meridian nchan} ;;
  cost) servers=meridian ;;
  *) die "say http, chat, idle or cost" ;;
esac
"packages_$what"
build
"bench_$what"
