#!/usr/bin/env bash
# Runs every benchmark program of a build, the limits of the machine first. `run.sh BUILD_DIR`
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:?usage: run.sh BUILD_DIR}

run() {
  echo "== $(basename "$1")"
  "$@"
  echo
}

echo "processor: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) threads, load $(cut -d' ' -f1 /proc/loadavg)"
echo
run "$build/bench/bench_limits"
run "$build/bench/bench_kernels"
for program in "$build"/bench/bench_*; do
  case $(basename "$program") in
    bench_limits | bench_kernels | *.d | *.log) continue ;;
  esac
  [ -x "$program" ] && run "$program"
done
