# Part of scripts/bench.sh: memory of idle WebSockets against nginx with Nchan. To be sourced.
#
# Memory does not scatter as time does, but what an allocator keeps depends on what came before: every run has a
# fresh server. The figure is the process's resident memory; the kernel's socket buffers come on top, for both alike.

packages_idle() {
  need_packages nginx:nginx
  need_nchan
}

idle_meridian() {
  start_hub <<CONF
[bus]
kind = "embedded"
CONF
  hold meridian "ws://127.0.0.1:$port/?userId={user}" --welcome
  stop "$pid"
}

idle_nchan() {
  start_nchan '' ''
  hold nchan "ws://127.0.0.1:$port/chat/{user}/{peer}"
  stop "$master"
}

# hold SERVER URL FLAG… - opens the sockets to the process $pid; appends "bytes-each MiB-before MiB-after".
hold() {
  local server=$1 url=$2 line
  shift 2
  line=$(timeout 60 taskset -c "$load_core" "$load" idle --url "$url" --count "$sockets" --process "server=$pid" "$@")
  awk -v each="$(value bytes_each "$line")" -v before="$(value before "$line")" -v after="$(value after "$line")" \
    'BEGIN { mib = 1048576; printf "%d %.1f %.1f\n", each, before / mib, after / mib }' >>"$dir/$server.idle"
}

bench_idle() {
  local s round
  # Both ends need a descriptor for each socket, each in its own process.
  sockets=${SOCKETS:-10000}
  ulimit -n "$(ulimit -Hn)"
  [ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -n)" -gt $((sockets + 100)) ] || die "too few descriptors: ulimit -n"
  for round in $(seq "$rounds"); do
    for s in $servers; do "idle_$s"; done
  done
  echo "Idle WebSockets, $sockets of as many users, medians of $rounds runs, each with a fresh server"
  printf '  %-10s %14s %18s %12s\n' server 'bytes a socket' 'RSS before, MiB' 'after, MiB'
  for s in $servers; do
    printf '  %-10s %14.0f %18.1f %12.1f\n' "$s" "$(median "$dir/$s.idle" 1)" "$(median "$dir/$s.idle" 2)" "$(median "$dir/$s.idle" 3)"
  done
}
