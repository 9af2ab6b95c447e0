#!/usr/bin/env bash
# `make gpu-all OUT=folder`: what one wants of the first ten minutes with a GPU, in the order of what is learned from it: the tests of
# core/math and of models, the bench with its goals, every kernel timed. Each has a limit of its own, and all of it 570 s (LIMIT).
# What the first leaves out (compute-sanitizer, HTTP) is `make gpu-check`'s. Ends with what failed, what was left out and the goals, so
# that the end of the output tells the most. Exit status 1 when anything failed.
set -uo pipefail
cd "$(dirname "$0")/../.."
export OUT=${OUT:-build/gpu}
whole=${LIMIT:-570}
end=$((SECONDS + whole))
left() { local most=$1 left=$((end - SECONDS - 5)); echo $((left < most ? left : most)); }
failed=0
mkdir -p "$OUT" && rm -f "$OUT"/{check,bench,trace}.md
QUICK=1 LIMIT=$(left $((whole * 2 / 5))) tests/gpu/check.sh || failed=1
# What a name of the device switches off is to blame: the figures are then of what is right.
for mode in serial apart library; do grep -qsF "(+$mode): passes" "$OUT/check.md" && export BACKEND=${BACKEND:-cuda:0+$mode}; done
LIMIT=$(left $((whole * 53 / 100))) tests/gpu/bench.sh || failed=1
LIMIT=$(left $((whole / 5))) tests/gpu/bench.sh trace >build/gpu/trace.log 2>&1 || failed=1 # long: in trace.md
echo; echo "# gpu-all: $([ $failed -eq 0 ] && echo 'nothing failed' || echo 'FAILED'), $SECONDS s; reports in $OUT"
grep -hE '^(FAIL|skip:)' "$OUT"/{check,bench,trace}.md 2>/dev/null | cut -c1-300
grep -hE '^      (each launch|without)' "$OUT/check.md" 2>/dev/null | head -n 9
sed -n '/^## Goals/,$p' "$OUT/bench.md" 2>/dev/null
exit $failed
