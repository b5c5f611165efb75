# Part of scripts/bench.sh: the region proxy against nginx and HAProxy. To be sourced.
#
# Each of them looks at x-region, keeps connections to its backend, and tells it the client's address, the scheme
# and a request's id, as a gateway does.

packages_http() { need_packages nginx:nginx haproxy:haproxy wrk:wrk; }

start_backend() {
  free_port
  backend_port=$port
  mkdir -p "$dir/files"
  head -c 65536 /dev/zero | tr '\0' 'x' >"$dir/files/large"
  {
    nginx_head backend 4096 ''
    cat <<CONF
  sendfile on; tcp_nopush on; open_file_cache max=10 inactive=1h;
  server {
    listen 127.0.0.1:$backend_port reuseport; default_type text/plain;
    location = /small { return 200 "$(head -c 100 /dev/zero | tr '\0' 'x')"; }
    location = /large { root $dir/files; }
  }
}
CONF
  } >"$dir/backend.conf"
  start "$load_core" backend nginx -p "$dir" -c "$dir/backend.conf"
  await_port "$backend_port" backend "$pid"
}

start_http_meridian() {
  free_port
  http_port[meridian]=$port
  free_port
  mkdir -p "$dir/meridian"
  cat >"$dir/meridian/default.toml" <<CONF
workers = 1
[log]
level = "warn"
access = false
[proxy]
bind = "127.0.0.1"
port = ${http_port[meridian]}
[admin]
port = $port
[regions.1]
backends = ["http://127.0.0.1:$backend_port"]
[regions.2]
backends = ["http://127.0.0.1:$backend_port"]
CONF
  start_meridian --only proxy
  worker[meridian]=$pid
  await_port "${http_port[meridian]}" meridian "$pid"
}

# What an operator would turn on, all of it at once.
start_http_configured() {
  free_port
  http_port[configured]=$port
  free_port
  mkdir -p "$dir/configured"
  cat >"$dir/configured/default.toml" <<CONF
workers = 1
[log]
level = "warn"
[access]
format = "json"
file = "$dir/configured/access.log"
[proxy]
bind = "127.0.0.1"
port = ${http_port[configured]}
total_timeout = "30s"
min_rate = 240
max_connections_per_client = 10000
[admin]
port = $port
[health]
active = "http"
path = "/small"
interval = "1s"
[breaker]
enabled = true
[retry]
statuses = [503]
[limits.everything]
path = "/*"
rate = "1000000/s"
[rules.admin]
path = "/admin/*"
action = "deny"
[security]
profile = "web"
[compression]
enabled = true
[regions.1]
balance = "p2c_ewma"
failover = { ordered = ["2"] }
backends = [
  { url = "http://127.0.0.1:$backend_port", max_connections = 1000 },
  { url = "http://localhost:$backend_port", max_connections = 1000 },
  { url = "http://127.0.0.2:$backend_port", backup = true },
]
[regions.2]
backends = ["http://127.0.0.1:$backend_port"]
CONF
  start_meridian_as configured --only proxy
  worker[configured]=$pid
  await_port "${http_port[configured]}" configured "$pid"
}

# As much of the same as nginx has.
start_http_nginx_configured() {
  free_port
  http_port[nginx_configured]=$port
  {
    nginx_head nginx_configured 4096 ''
    cat <<CONF
  map \$http_x_region \$region_backend { default ''; 1 region_1; 2 region_2; }
  log_format line escape=json '{"time":"\$time_iso8601","client":"\$remote_addr","method":"\$request_method","path":"\$uri","status":\$status,"bytes":\$body_bytes_sent,"took":\$request_time,"first":"\$upstream_response_time","backend":"\$upstream_addr","id":"\$request_id"}';
  limit_req_zone \$binary_remote_addr zone=everything:10m rate=1000000r/s;
  limit_conn_zone \$binary_remote_addr zone=clients:10m;
  gzip on; gzip_types text/css application/json;
  upstream region_1 {
    least_conn; keepalive 64; keepalive_requests 1000000000;
    server 127.0.0.1:$backend_port max_conns=1000 max_fails=5 fail_timeout=10s;
    server localhost:$backend_port max_conns=1000 max_fails=5 fail_timeout=10s;
  }
  upstream region_2 { server 127.0.0.1:$backend_port; keepalive 64; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$port;
    access_log $dir/nginx_configured.access.log line buffer=64k flush=1s;
    limit_req zone=everything burst=1000 nodelay; limit_conn clients 10000;
    add_header X-Content-Type-Options nosniff; add_header X-Frame-Options SAMEORIGIN;
    add_header Referrer-Policy strict-origin-when-cross-origin;
    location /admin/ { deny all; }
    location / {
      if (\$region_backend = '') { return 400; }
      proxy_next_upstream error timeout http_503;
      proxy_pass http://\$region_backend; proxy_http_version 1.1;
      proxy_set_header Connection ''; proxy_set_header Host \$host;
      proxy_set_header X-Forwarded-For \$remote_addr; proxy_set_header X-Forwarded-Proto \$scheme;
      proxy_set_header X-Request-Id \$request_id;
    }
  }
}
CONF
  } >"$dir/nginx_configured.conf"
  start "$server_core" nginx_configured nginx -p "$dir" -c "$dir/nginx_configured.conf"
  await_port "$port" nginx_configured "$pid"
  worker[nginx_configured]=$(nginx_worker "$pid")
}

start_http_nginx() {
  free_port
  http_port[nginx]=$port
  {
    nginx_head nginx 4096 ''
    cat <<CONF
  map \$http_x_region \$region_backend { default ''; 1 region_1; 2 region_2; }
  upstream region_1 { server 127.0.0.1:$backend_port; keepalive 64; keepalive_requests 1000000000; }
  upstream region_2 { server 127.0.0.1:$backend_port; keepalive 64; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$port;
    location / {
      if (\$region_backend = '') { return 400; }
      proxy_pass http://\$region_backend; proxy_http_version 1.1;
      proxy_set_header Connection ''; proxy_set_header Host \$host;
      proxy_set_header X-Forwarded-For \$remote_addr; proxy_set_header X-Forwarded-Proto \$scheme;
      proxy_set_header X-Request-Id \$request_id;
    }
  }
}
CONF
  } >"$dir/nginx.conf"
  start "$server_core" nginx nginx -p "$dir" -c "$dir/nginx.conf"
  await_port "$port" nginx "$pid"
  worker[nginx]=$(nginx_worker "$pid")
}

start_http_haproxy() {
  free_port
  http_port[haproxy]=$port
  cat >"$dir/haproxy.conf" <<CONF
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option forwardfor
frontend regions
  bind 127.0.0.1:$port
  unique-id-format %{+X}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header x-request-id
  http-request set-header x-forwarded-proto http
  acl region_1 req.hdr(x-region) -m str 1
  acl region_2 req.hdr(x-region) -m str 2
  http-request deny deny_status 400 unless region_1 or region_2
  use_backend region_1 if region_1
  use_backend region_2 if region_2
backend region_1
  server only 127.0.0.1:$backend_port
backend region_2
  server only 127.0.0.1:$backend_port
CONF
  start "$server_core" haproxy haproxy -db -f "$dir/haproxy.conf"
  worker[haproxy]=$pid
  await_port "$port" haproxy "$pid"
}

# run_wrk SERVER PATH SECONDS - one run; appends "requests/s core% requests/cpu-second" to SERVER.PATH.
run_wrk() {
  local before after out rate
  before=$(ticks "${worker[$1]}")
  out=$(timeout 60 taskset -c "$load_core" wrk -t1 -c64 -d"$3s" -H 'x-region: 1' "http://127.0.0.1:${http_port[$1]}/$2")
  after=$(ticks "${worker[$1]}")
  if grep -q 'Non-2xx\|Socket errors' <<<"$out"; then echo "$out" >&2; die "$1 did not answer every request of /$2"; fi
  awk -v spent=$((after - before)) '
    /requests in/ { n = $1; t = $4; sub(/s,/, "", t) }
    END { printf "%.0f %.1f %.0f\n", n / t, spent / t, n / (spent / 100) }' <<<"$out" >>"$dir/$1.$2"
}

table_http() {
  # $1 path, $2 title
  local s rate core per
  echo
  echo "$2"
  printf '  %-16s %12s %8s %18s %s\n' server requests/s core requests/cpu-s 'meridian ÷ it'
  for s in $servers; do
    rate=$(median "$dir/$s.$1" 1) core=$(median "$dir/$s.$1" 2) per=$(median "$dir/$s.$1" 3)
    printf '  %-16s %12.0f %7.0f%% %18.0f' "$s" "$rate" "$core" "$per"
    if has meridian && [ "$s" != meridian ]; then
      # Both cores full: requests a second decide. Else the load was the limit, and processor time decides.
      awk -v a="$(median "$dir/meridian.$1" 2)" -v b="$core" -v rate="$(ratio "$dir/meridian.$1" "$dir/$s.$1" 1)" \
        -v cpu="$(ratio "$dir/meridian.$1" "$dir/$s.$1" 3)" 'BEGIN {
          if (a >= 95 && b >= 95) printf " %.2f by requests/s (%.2f by cpu)", rate, cpu
          else printf " %.2f by cpu (%.2f by requests/s)", cpu, rate }'
    fi
    echo
  done
}

bench_http() {
  declare -gA http_port worker
  local s path round
  start_backend
  for s in $servers; do "start_http_$s"; done
  for path in small large; do
    for s in $servers; do run_wrk "$s" "$path" 1; rm "$dir/$s.$path"; done
    for round in $(seq "$rounds"); do
      for s in $servers; do run_wrk "$s" "$path" "$seconds"; done
    done
  done
  echo "HTTP, 64 kept connections, one core, medians of $rounds runs of $seconds s"
  table_http small "100 B"
  table_http large "64 KiB"
  if has configured && has nginx_configured; then
    echo
    echo "all configured, Meridian ÷ nginx: 100 B $(ratio "$dir/configured.small" "$dir/nginx_configured.small" 1 | cut -c1-5) by requests/s," \
      "64 KiB $(ratio "$dir/configured.large" "$dir/nginx_configured.large" 3 | cut -c1-5) by cpu"
  fi
}
