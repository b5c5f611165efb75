# Part of scripts/bench.sh: what the promise costs Redis, and the hub, against plain PUBLISH. To be sourced.
#
# Four hubs over one Redis carry the same chat in turn: stored with the fence in each script (the default), stored with
# the fence at the connection alone, stored without one, and at most once, which is a bare PUBLISH. Redis counts its
# commands; the kernel counts processor time. Then users who are away get one message each, and ten, and Redis is
# asked for its memory; and a hub with idle sockets is left alone, and Redis asked what it still hears of it.

packages_cost() { need_packages redis-server:redis-server redis-cli:redis-tools; }

ways='script connection off at-most-once'

redis() { redis-cli -p "$redis_port" "$@"; }

# start_way WAY - a hub that works this way; sets `pid` and `port`.
start_way() {
  local delivery=exactly-once fence=$1
  if [ "$1" = at-most-once ]; then delivery=$1 fence=script; fi
  start_hub <<CONF
[hub]
messages_per_second = 100000000
message_burst = 100000000
delivery = "$delivery"
# The idle clients answer none.
ping_interval = "1h"
[bus]
kind = "redis"
[bus.redis]
host = "127.0.0.1"
port = $redis_port
fence = "$fence"
CONF
}

# calls COMMAND - how often Redis ran it since its statistics were reset, also within scripts.
calls() { redis info commandstats | tr -d '\r' | sed -n "s/^cmdstat_$1:calls=\([0-9]*\),.*/\1/p" | grep . || echo 0; }

# all_calls - of every command, also within scripts, but for those of this script.
all_calls() {
  redis info commandstats | tr -d '\r' | sed -n 's/^cmdstat_\([^:]*\):calls=\([0-9]*\),.*/\1 \2/p' |
    grep -v '^\(config\|client\|command\)|\?' | awk '{ n += $2 } END { print n }'
}

# run_way WAY ROUND - one run; appends "messages/s, Redis µs, hub µs, commands sent, commands in all", each a message.
run_way() {
  local line all sent
  redis config resetstat >/dev/null
  line=$(timeout 60 taskset -c "$load_core" "$load" chat --url "${way_url[$1]}" --welcome --tag "$1$2" \
    --pairs 200 --window 8 --bytes 128 --seconds "$seconds" --process "server=${way_pid[$1]}" --process "redis=$redis_pid")
  all=$(all_calls)
  sent=$(($(calls evalsha) + $(awk -v way="$1" -v n="$(calls publish)" 'BEGIN { print way == "at-most-once" ? n : 0 }')))
  awk -v n="$(value delivered "$line")" -v t="$(value seconds "$line")" -v redis="$(value cpu_redis "$line")" \
    -v hub="$(value cpu_server "$line")" -v total="$(value received "$line")" -v sent="$sent" -v all="$all" 'BEGIN {
      if (n == 0) exit 1
      printf "%.0f %.2f %.2f %.2f %.2f\n", n / t, 1e6 * redis / n, 1e6 * hub / n, sent / total, all / total
    }' >>"$dir/$1.cost" || die "nothing was delivered: $line"
}

# memory - bytes that Redis has taken, tables included.
memory() { redis info memory | tr -d '\r' | sed -n 's/^used_memory:\([0-9]*\)/\1/p'; }

# fill MESSAGES TAG - so many to each of $users users.
fill() {
  timeout 300 taskset -c "$load_core" "$load" fill --url "${way_url[script]}" --welcome \
    --users "$users" --messages "$1" --bytes 128 --tag "$2" >/dev/null
}

# memory_of MESSAGES - prints bytes a user, with the receipts of the last ten minutes and without.
memory_of() {
  local empty full tag
  tag=fill$(printf %02d "$1")
  empty=$(memory)
  fill "$1" "$tag"
  full=$(memory)
  redis --scan --pattern "seen:{chat:$tag-*" | xargs -d '\n' -n 1000 redis-cli -p "$redis_port" unlink >/dev/null
  sleep 2
  echo "$(((full - empty) / users)) $((($(memory) - empty) / users))"
}

# idle_commands - a second, of a hub with $sockets idle sockets.
idle_commands() {
  local holder way
  # The others would be heard by Redis, too.
  for way in connection off at-most-once; do kill "${way_pid[$way]}" 2>/dev/null && wait "${way_pid[$way]}" 2>/dev/null; done
  taskset -c "$load_core" "$load" idle --url "${way_url[script]}" --welcome --count "$sockets" \
    --process "server=${way_pid[script]}" --hold 120 >/dev/null 2>&1 &
  holder=$!
  # They are there by now, and what they cost at first is paid.
  sleep 15
  redis config resetstat >/dev/null
  sleep 10
  awk -v n="$(all_calls)" 'BEGIN { printf "%.1f\n", n / 10 }'
  kill "$holder"
  wait "$holder" 2>/dev/null || true
}

bench_cost() {
  declare -gA way_pid way_url
  local way round one ten
  users=${USERS:-20000} sockets=${SOCKETS:-1000}
  ulimit -n "$(ulimit -Hn)"
  start_redis
  for way in $ways; do
    start_way "$way"
    way_pid[$way]=$pid way_url[$way]="ws://127.0.0.1:$port/?userId={user}"
  done
  for round in $(seq "$rounds"); do
    for way in $ways; do run_way "$way" "$round"; done
  done
  echo "A message over Redis, 200 pairs, 8 of 128 B in flight each, medians of $rounds runs of $seconds s"
  printf '  %-14s %12s %10s %8s %14s %20s\n' way messages/s 'Redis µs' 'hub µs' 'commands sent' 'with those in scripts'
  for way in $ways; do
    printf '  %-14s %12.0f %10.2f %8.2f %14.2f %20.2f\n' "$way" "$(median "$dir/$way.cost" 1)" "$(median "$dir/$way.cost" 2)" \
      "$(median "$dir/$way.cost" 3)" "$(median "$dir/$way.cost" 4)" "$(median "$dir/$way.cost" 5)"
  done
  for way in script off; do
    printf '  stored (%s) ÷ at most once, of Redis: %.2f, of the hub: %.2f\n' "$way" \
      "$(ratio "$dir/$way.cost" "$dir/at-most-once.cost" 2)" "$(ratio "$dir/$way.cost" "$dir/at-most-once.cost" 3)"
  done
  for way in connection off at-most-once; do stop "${way_pid[$way]}"; done
  one=$(memory_of 1) ten=$(memory_of 10)
  echo "Memory of Redis a user, $users users, 128 B a message, with receipts and without"
  echo "  one message: $one; ten messages: $ten"
  echo "Commands a second from a hub with $sockets idle sockets, those in scripts too: $(idle_commands)"
}
