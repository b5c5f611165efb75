# Part of scripts/bench.sh: chat over one Redis against nginx with Nchan. To be sourced.
#
# Each user has a channel, each socket subscribes to its own and publishes into its partner's; both keep up to
# 1,000 messages for a day. Nchan hands on what it got; the hub also checks, numbers, deduplicates and stamps it.

packages_chat() {
  need_packages nginx:nginx redis-server:redis-server
  need_nchan
}

# The module has no command of its own to look for.
need_nchan() { [ -e "$nchan_module" ] || need_packages nchan-module-is-missing:libnginx-mod-nchan; }
nchan_module=/usr/lib/nginx/modules/ngx_nchan_module.so

start_redis() {
  free_port
  redis_port=$port
  start "$load_core" redis redis-server --bind 127.0.0.1 --port "$port" --dir "$dir" --save '' --appendonly no
  redis_pid=$pid
  await_port "$port" redis "$pid"
}

# start_hub - hub of region 1 alone, with the further settings on standard input; sets `pid` and `port`.
start_hub() {
  local hub_port
  free_port
  hub_port=$port
  free_port
  mkdir -p "$dir/meridian"
  {
    cat <<CONF
workers = 1
[log]
level = "warn"
access = false
[admin]
port = $port
[regions.1.hub]
bind = "127.0.0.1"
port = $hub_port
CONF
    cat
  } >"$dir/meridian/default.toml"
  start_meridian --only hub-1
  port=$hub_port
  await_port "$port" meridian "$pid"
}

# start_nchan - with the further lines of the http block and of the location in $1 and $2; sets `pid`, the worker's,
# `master`, and `port`.
start_nchan() {
  free_port
  {
    nginx_head nchan 16384 "load_module $nchan_module;"
    cat <<CONF
  nchan_shared_memory_size 1G; $1
  server {
    listen 127.0.0.1:$port backlog=4096;
    location ~ ^/chat/([^/]+)/([^/]+)\$ {
      nchan_pubsub websocket; nchan_subscriber_channel_id \$1; nchan_publisher_channel_id \$2;
      nchan_message_buffer_length 1000; nchan_message_timeout 24h; $2
    }
  }
}
CONF
  } >"$dir/nchan.conf"
  start "$server_core" nchan nginx -p "$dir" -c "$dir/nchan.conf"
  master=$pid
  await_port "$port" nchan "$pid"
  pid=$(nginx_worker "$master")
}

start_chat_meridian() {
  start_hub <<CONF
[hub]
messages_per_second = 100000000
message_burst = 100000000
[bus]
kind = "redis"
[bus.redis]
host = "127.0.0.1"
port = $redis_port
CONF
  worker[meridian]=$pid
  chat_url[meridian]="ws://127.0.0.1:$port/?userId={user}"
  greets[meridian]=--welcome
}

start_chat_nchan() {
  start_nchan "upstream redis { nchan_redis_server redis://127.0.0.1:$redis_port; }" 'nchan_redis_pass redis;'
  worker[nchan]=$pid
  chat_url[nchan]="ws://127.0.0.1:$port/chat/{user}/{peer}"
  greets[nchan]=
}

# run_chat SERVER ROUND - one run; appends "messages/s core% messages/cpu-s redis-µs/message lost disordered".
run_chat() {
  local line
  # shellcheck disable=SC2086 # an empty flag is no word
  line=$(timeout 60 taskset -c "$load_core" "$load" chat --url "${chat_url[$1]}" ${greets[$1]} --tag "round$2" \
    --pairs 200 --window 8 --bytes 128 --seconds "$seconds" \
    --process "server=${worker[$1]}" --process "redis=$redis_pid")
  echo "$1 $line" >>"$dir/chat.log"
  awk -v n="$(value delivered "$line")" -v t="$(value seconds "$line")" -v cpu="$(value cpu_server "$line")" \
    -v redis="$(value cpu_redis "$line")" -v lost=$(($(value sent "$line") - $(value received "$line"))) \
    -v disordered="$(value out_of_order "$line")" -v refused="$(value refused "$line")" 'BEGIN {
      if (n == 0 || cpu == 0) exit 1
      printf "%.0f %.1f %.0f %.2f %d %d %d\n", n / t, 100 * cpu / t, n / cpu, 1e6 * redis / n, lost, disordered, refused
    }' >>"$dir/$1.chat" || die "$1 delivered nothing: $line"
}

bench_chat() {
  declare -gA worker chat_url greets
  local s round
  start_redis
  for s in $servers; do "start_chat_$s"; done
  for round in $(seq "$rounds"); do
    for s in $servers; do run_chat "$s" "$round"; done
  done
  echo "Chat over Redis, 200 pairs, 8 messages of 128 B in flight each, one core, medians of $rounds runs of $seconds s"
  printf '  %-10s %12s %8s %16s %16s %18s %s\n' server messages/s core messages/cpu-s 'Redis µs/message' 'lost, disordered' 'meridian ÷ it'
  for s in $servers; do
    printf '  %-10s %12.0f %7.0f%% %16.0f %16.2f %18s' "$s" "$(median "$dir/$s.chat" 1)" "$(median "$dir/$s.chat" 2)" \
      "$(median "$dir/$s.chat" 3)" "$(median "$dir/$s.chat" 4)" "$(awk '{ l += $5; d += $6 } END { print l ", " d }' "$dir/$s.chat")"
    if has meridian && [ "$s" != meridian ]; then
      printf ' %.2f by cpu' "$(ratio "$dir/meridian.chat" "$dir/$s.chat" 3)"
    fi
    echo
  done
}
