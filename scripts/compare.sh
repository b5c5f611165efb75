#!/usr/bin/env bash
# Sends the tables of tests/it/rows as raw bytes to Meridian, nginx and HAProxy, each before the same backend, and prints how many
# entries of each row were kept, and what was made of the others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
need_packages nginx:nginx haproxy:haproxy
nginx -v 2>&1
haproxy -v | head -1
cargo test --locked --quiet --test it rows::compare -- --ignored --nocapture
