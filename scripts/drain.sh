#!/usr/bin/env bash
# Stops a gateway with 1,000 chat sockets and 200 tunnels, and prints how many were told to go in each second. Ends with 1
# where one was cut instead, or a second had more than one and a half times its share.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Each client is a socket here and one at the gateway, and each tunnel one more at the backend.
ulimit -n "$(ulimit -Hn)"
cargo test --locked --quiet --test it spread:: -- --ignored --nocapture
