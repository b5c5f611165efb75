#!/usr/bin/env bash
# Talking pairs on two nodes while something breaks; prints what was sent, acknowledged, delivered, lost, doubled,
# disordered, and the time to recover. Ends with 1 where a column that must be zero is not.
#   scripts/chaos.sh [--pairs N] [--every MS] [fault …]      all faults where none is named; --list names them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
export CHAOS_PAIRS=200 CHAOS_EVERY_MS=250 CHAOS_FAULTS=
while [ $# -gt 0 ]; do
  case $1 in
    --pairs) CHAOS_PAIRS=${2:?a number of pairs}; shift 2 ;;
    --every) CHAOS_EVERY_MS=${2:?milliseconds}; shift 2 ;;
    --list) sed -n 's/^const [A-Z_]*: &str = "\(.*\)";$/\1/p' tests/it/chaos/faults.rs; exit ;;
    -*) echo "usage: scripts/chaos.sh [--pairs N] [--every MS] [--list] [fault …]" >&2; exit 2 ;;
    *) CHAOS_FAULTS+="$1 "; shift ;;
  esac
done
need_packages redis-server:redis-server
# Each client is a socket here and one at its node.
ulimit -n "$(ulimit -Hn)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --locked --quiet --test it chaos::at_full_size -- --ignored --exact --nocapture 2>&1 | tee "$log" || status=1
# A name that matches no test would be a success.
grep -q '^test result: ok. 1 passed' "$log" || status=1
exit "$status"
