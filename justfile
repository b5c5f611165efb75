# What CI runs.
check:
    .ci/run

# Everything in one process, on the embedded bus.
dev *arguments:
    scripts/dev.sh {{arguments}}

# All tests, or those whose names contain the given words.
test *arguments:
    scripts/test.sh {{arguments}}

# Side by side with nginx, HAProxy and Nchan: http, chat or idle.
bench what="http":
    scripts/bench.sh {{what}}

# The tables of HTTP's rules, sent to nginx and HAProxy as well.
compare:
    scripts/compare.sh

# Licences, advisories and duplicate versions of the dependencies.
deny:
    cargo deny check

# Talking pairs while something breaks; all faults, or those named.
chaos *faults:
    scripts/chaos.sh {{faults}}
