#!/usr/bin/env bash
# `make gpu-check`: the tests of the CUDA backend on a real device, from this repository alone. Prints a report and keeps it in
# build/gpu/check.md. Exit status: 0 when all that could run passed (what could not is skipped by name), else 1.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/gpu/machine.sh
mkdir -p build/gpu

failed=0
# tested MODE PROGRAM: one line of the report; the output where it failed.
tested() {
  local log=build/gpu/$(basename "$2").log begin=$SECONDS
  if STEERD_TEST_BACKEND=$1 timeout 300 "$2" >"$log" 2>&1; then
    echo "ok    $(basename "$2") ($1), $(grep -ao '[0-9]* test(s) run' "$log" | tail -n 1), $((SECONDS - begin)) s"
  else
    failed=1
    echo "FAIL  $(basename "$2") ($1)"; tail -n 30 "$log"
  fi
  grep -a '^skip:' "$log" | grep -v 'this run tests CUDA' | sort -u
}

check() {
  echo "# gpu-check, $(git rev-parse --short HEAD 2>/dev/null || echo 'no git'), $(date -u +%F)"
  machine_ready gpu-check
  echo
  echo "## core/math: every op, bit for bit at any load (deterministic), and within stated bounds (plain)"
  for test in ops ops_rows codes kernels cuda; do tested cuda+deterministic build/gpu/test_$test; done
  for test in ops_rows codes cuda; do tested cuda build/gpu/test_$test; done
  echo
  echo "## models and dictionaries against recorded vectors"
  local programs=()
  if ls build/gpu/bundle/test_* >/dev/null 2>&1; then
    programs=(build/gpu/bundle/test_*)
  elif make -s -j"$(nproc)" cuda-tests >build/gpu/cuda-tests.log 2>&1; then
    programs=(build/release/tests-cuda/test_*[a-z0-9])
  else
    echo "skip: models (the libraries of the daemon are missing: \`make deps\` installs them, \`make gpu-bundle\` elsewhere brings them)"
  fi
  for program in "${programs[@]}"; do [ -x "$program" ] && tested cuda+deterministic "$program"; done
  echo
  echo "## HTTP"
  if make -s -j"$(nproc)" build >build/gpu/build.log 2>&1 && python3 -c 'import pytest, requests' 2>/dev/null; then
    STEERD_TEST_CUDA=$STEERD_CUDA_LIBRARY STEERD_BINARY=$PWD/build/release/steerd timeout 500 python3 -m pytest -q tests/http/test_api.py 2>&1 | tail -n 5 || failed=1
  else
    echo "skip: HTTP (libmicrohttpd, jansson, SQLite, pytest or requests are missing)"
  fi
  echo
  echo "## compute-sanitizer"
  if command -v compute-sanitizer >/dev/null; then
    STEERD_TEST_BACKEND=cuda timeout 300 compute-sanitizer --tool memcheck --error-exitcode 9 build/gpu/test_ops_rows >build/gpu/memcheck.log 2>&1
    case $? in
      0) echo "ok    memcheck of test_ops_rows" ;;
      9) failed=1; echo "FAIL  memcheck"; grep -a '=====' build/gpu/memcheck.log | head -n 30 ;;
      *) if grep -qa 'not supported' build/gpu/memcheck.log; then echo "skip: compute-sanitizer (it does not know this device)"
         else failed=1; echo "FAIL  memcheck did not run"; tail -n 20 build/gpu/memcheck.log; fi ;;
    esac
  else
    echo "skip: compute-sanitizer (not installed)"
  fi
  echo
  [ $failed -eq 0 ] && echo "gpu-check: passed" || echo "gpu-check: FAILED"
  return $failed
}

check 2>&1 | tee build/gpu/check.md
exit "${PIPESTATUS[0]}"
