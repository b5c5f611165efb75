#!/usr/bin/env bash
# Installs what the tests need (redis-server, Chromium and its driver, from Debian's packages) and runs everything.
#   scripts/test.sh [arguments of cargo test]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
need_packages redis-server:redis-server chromium:chromium chromedriver:chromium-driver
cargo test --locked "$@"
