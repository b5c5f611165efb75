#!/usr/bin/env bash
# Installs what the tests need (Redis, Chromium and its driver, and as peers of the proxy nginx, HAProxy, Node, Python,
# curl, OpenSSL and nghttp2's tools, all from Debian's packages) and runs everything.
#   scripts/test.sh [arguments of cargo test]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
# By their paths: the tests start the browser that is there, and the shell has a kill of its own.
need_packages redis-server:redis-server /usr/bin/chromium:chromium chromedriver:chromium-driver node:nodejs /bin/kill:procps \
  nginx:nginx haproxy:haproxy python3:python3 curl:curl openssl:openssl nghttp:nghttp2-client h2load:nghttp2-client /usr/bin/systemd-socket-activate:systemd
# Node has a WebSocket of its own since 22, and behind a flag since 20.10.
if [ "$(node -p 'typeof WebSocket')" = undefined ] && ! node --experimental-websocket -e 0 2>/dev/null; then need_packages /usr/share/nodejs/ws:node-ws; fi
cargo test --locked "$@"
