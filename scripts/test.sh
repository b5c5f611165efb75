#!/usr/bin/env bash
# Installs what the tests need (redis-server, Chromium and its driver, Node, from Debian's packages) and runs everything.
#   scripts/test.sh [arguments of cargo test]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
need_packages redis-server:redis-server chromium:chromium chromedriver:chromium-driver node:nodejs
# Node has a WebSocket of its own since 22, and behind a flag since 20.
if [ "$(node -p 'parseInt(process.versions.node)')" -lt 20 ]; then need_packages /usr/share/nodejs/ws:node-ws; fi
cargo test --locked "$@"
