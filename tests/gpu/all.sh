#!/usr/bin/env bash
# `make gpu-all OUT=folder`: what one wants of the first ten minutes with a GPU, in the order of what is learned from it: the tests of
# core/math and of models, the bench with its goals, every kernel timed. Each has a limit of its own, and all of it 570 s (LIMIT).
# What the first leaves out (compute-sanitizer, HTTP) is `make gpu-check`'s. Exit status 1 when anything failed.
set -uo pipefail
cd "$(dirname "$0")/../.."
export OUT=${OUT:-build/gpu}
end=$((SECONDS + ${LIMIT:-570}))
left() { local most=$1 left=$((end - SECONDS - 5)); echo $((left < most ? left : most)); }
failed=0
QUICK=1 LIMIT=$(left 230) tests/gpu/check.sh || failed=1
LIMIT=$(left 300) tests/gpu/bench.sh || failed=1
LIMIT=$(left 120) tests/gpu/bench.sh trace || failed=1
exit $failed
