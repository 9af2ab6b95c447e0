#!/usr/bin/env bash
# `make gpu-check`: the tests of the CUDA backend on a real device, from this repository alone. Prints a report and keeps it in
# $OUT/check.md (build/gpu), with the output of what failed in $OUT/check.log. LIMIT: seconds for all of it (540). Exit status: 0 when
# all that could run passed (what could not is skipped by name), else 1.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/gpu/machine.sh

failed=0 looked=0 # how many were looked at closer: the first three tell what there is to tell
: >"$OUT/check.log"

# What a failed program says: where it was, what was expected and found, and the first lines the library said.
explain() {
  grep -a -E 'ERROR|FAILED|error:|failed:|not .* to |emulated CUDA|steerd-cuda' "$1" | head -n 14
  grep -a 'RUN' "$1" | tail -n 1 | sed 's/^/      last: /'
  tail -n 3 "$1" | sed 's/^/      /'
  keep_log "$1"
}
keep_log() { { echo "== $1"; tail -c 20000 "$1"; } >>"$OUT/check.log"; }

# The same again, one launch after the other, each waited for and looked at: names the kernel that fails. And without what a name of the
# device switches off: what passes so and fails otherwise is to blame.
again() {
  local log=$2.again rc
  [ $((looked++)) -lt 3 ] || return 0
  STEERD_CUDA_WATCH=each STEERD_TEST_BACKEND=$1 limited 40 $line_buffered "$3" >"$log" 2>&1; rc=$?
  echo "      each launch looked at: $([ $rc -eq 0 ] && echo passes || echo "fails ($rc)")"
  grep -a 'steerd-cuda' "$log" | head -n 5
  without 'without kernels that begin early' "$1+serial" "$log" "$3"
  without 'without rows and products in one launch' "$1+apart" "$log" "$3"
}

# without WHAT MODE LOG PROGRAM
without() {
  local rc
  STEERD_TEST_BACKEND=$2 limited 40 $line_buffered "$4" >"$3" 2>&1; rc=$?
  echo "      $1 (+${2##*+}): $([ $rc -eq 0 ] && echo passes || echo "fails ($rc)")"
}

# tested SECONDS MODE PROGRAM: one line of the report; more where it failed.
tested() {
  local name log begin=$SECONDS rc
  name=$(basename "$3") log=build/gpu/$(basename "$3").log
  STEERD_TEST_BACKEND=$2 limited "$1" $line_buffered "$3" >"$log" 2>&1; rc=$?
  if [ $rc -eq 0 ] && grep -qa 'could not be recorded' "$log" && [ "${STEERD_CUDA_LIBRARY%emulated.so}" = "$STEERD_CUDA_LIBRARY" ]; then
    failed=1 # right, but slow: every figure of the bench would be of steps launched op by op
    echo "FAIL  $name ($2) passed, but steps could not be recorded"
    grep -am 3 'could not be recorded' "$log"; keep_log "$log"
  elif [ $rc -eq 0 ] && ! grep -qa '^skip: the CUDA backend' "$log"; then
    echo "ok    $name ($2), $(grep -ao '[0-9]* test(s) run' "$log" | tail -n 1), $((SECONDS - begin)) s"
  elif out_of_time $rc && [ "$(seconds_left 9)" -lt 9 ]; then
    echo "skip: $name ($2): no time left"
  else
    failed=1
    echo "FAIL  $name ($2), $(out_of_time $rc && echo "not done after $((SECONDS - begin)) s" || echo "status $rc")"
    explain "$log"
    again "$2" "$log" "$3"
  fi
  grep -a '^skip:' "$log" | grep -v 'this run tests CUDA' | sort -u
}

check_math() {
  echo
  echo "## core/math: within stated bounds (plain), and bit for bit at any load (deterministic)"
  for test in ops_rows cuda cuda_matrices cuda_recording cuda_pages cuda_products cuda_kept cuda_mixed cuda_launches cuda_draws vjp; do tested 60 cuda "$programs/test_$test"; done
  for test in $(sed -n "s/^GPU_TESTS := //p" Makefile); do tested 60 cuda+deterministic "$programs/test_$test"; done
}

# What the bench times, beside the processor's answers: the tests are of small matrices.
check_sizes() {
  local log=build/gpu/answers.log rc mode
  echo
  echo "## the sizes that models have"
  echo
  limited 120 $line_buffered "$programs/bench_gpu" --part answers ${TINY:+--tiny} >"$log" 2>&1; rc=$?
  grep -aE '^(FAIL  )?\|' "$log"
  [ $rc -eq 0 ] && return
  if out_of_time $rc && [ "$(seconds_left 9)" -lt 9 ]; then echo "skip: the sizes that models have: no time left"; return; fi
  failed=1
  if ! grep -aq '^FAIL' "$log"; then
    echo "FAIL  the sizes that models have: $(out_of_time $rc && echo 'not done in time' || echo "status $rc")"; tail -n 5 "$log"
    STEERD_CUDA_WATCH=each limited 60 "$programs/bench_gpu" --part answers ${TINY:+--tiny} 2>&1 | grep -a 'steerd-cuda' | head -n 5 # which kernel
  fi
  grep -aq '^FAIL.* cuda:0 |' "$log" && for mode in serial apart library; do # what heals it
    grep -aq " cuda:0+$mode |" "$log" && ! grep -aq "^FAIL.* cuda:0+$mode |" "$log" && echo "      without what is to blame (+$mode): passes"
  done
  keep_log "$log"
}

check_models() {
  echo
  echo "## models and dictionaries against recorded vectors"
  local folder=
  if ls "$bundle"/test_plan >/dev/null 2>&1; then
    folder=$bundle
  elif limited 200 make -s -j"$jobs" cuda-tests >build/gpu/cuda-tests.log 2>&1; then
    folder=build/release/tests-cuda
  else
    echo "skip: models (the libraries of the daemon are missing: \`make deps\` installs them, \`make gpu-bundle\` makes what another machine brings)"
  fi
  [ -n "$folder" ] || return
  for test in $(sed -n 's/^GPU_BUNDLE_TESTS := //p' Makefile); do
    [ -x "$folder/test_$test" ] && tested 90 cuda+deterministic "$folder/test_$test"
  done
}

check_http() {
  local daemon=$PWD/build/release/steerd
  echo
  echo "## HTTP"
  if [ -x "$bundle/steerd" ]; then
    daemon=$PWD/build/bundled/steerd # where it finds its pages: two folders below the repository's
    mkdir -p build/bundled && cp -r "$bundle/steerd" "$bundle/lib" build/bundled/
  elif ! limited 200 make -s -j"$jobs" build >build/gpu/build.log 2>&1; then
    echo "skip: HTTP (libmicrohttpd, jansson or SQLite are missing, and no build/gpu/bundle.tar.xz was brought)"; return
  fi
  if ! python3 -c 'import pytest, requests' 2>/dev/null; then
    echo "skip: HTTP (pytest or requests are missing)"; return
  fi
  STEERD_TEST_CUDA=$STEERD_CUDA_LIBRARY STEERD_BINARY=$daemon limited 150 python3 -m pytest -q -x -p no:cacheprovider tests/http/test_api.py \
    >build/gpu/http.log 2>&1
  case $? in
    0) echo "ok    HTTP, $(tail -n 1 build/gpu/http.log)" ;;
    124 | 137) echo "skip: HTTP (no time left)"; tail -n 3 build/gpu/http.log ;;
    *) failed=1; echo "FAIL  HTTP"; tail -n 25 build/gpu/http.log; keep_log build/gpu/http.log ;;
  esac
}

# sanitized TOOL PROGRAM. All waits ask the device until it is ready: "not ready" is no error, but memcheck counts what calls return.
sanitized() {
  local log=build/gpu/$1-$(basename "$2").log api_errors= rc
  [ "$1" = memcheck ] && api_errors='--report-api-errors no'
  STEERD_TEST_BACKEND=cuda limited 80 compute-sanitizer --tool "$1" $api_errors --error-exitcode 9 --print-limit 20 "$2" >"$log" 2>&1; rc=$?
  case $rc in
    0) echo "ok    $1 of $(basename "$2")" ;;
    124 | 137) echo "skip: $1 (no time left)" ;;
    *) if grep -qaiE 'not supported|LibraryNotLoaded|error 999' "$log"; then echo "skip: $1 (compute-sanitizer does not know this device)"; return 1; fi
       failed=1; echo "FAIL  $1 of $(basename "$2") (status $rc)"; grep -a '=====' "$log" | head -n 30; keep_log "$log" ;;
  esac
}

check_memory() {
  echo
  echo "## compute-sanitizer"
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck; do sanitized $tool "$programs/test_ops_rows" || return 0; done
    for test in cuda_launches cuda_products codes cuda_draws cuda_kept cuda_mixed vjp; do sanitized memcheck "$programs/test_$test"; done
  else
    echo "skip: compute-sanitizer (not installed)"
  fi
}

check() {
  echo "# gpu-check, $(which_commit), $(date -u +%FT%TZ)"
  machine_ready gpu-check
  check_sizes # first: it takes seconds, and the figures of the bench are worth what it says
  check_math
  check_models
  [ "${QUICK:-}" ] || { check_http; check_memory; }
  echo
  [ $failed -eq 0 ] && echo "gpu-check: passed, $SECONDS s" || echo "gpu-check: FAILED, $SECONDS s"
  return $failed
}

check 2>&1 | tee "$OUT/check.md"
exit "${PIPESTATUS[0]}"
