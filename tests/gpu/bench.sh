#!/usr/bin/env bash
# `make gpu-bench`: speed on a real device beside its limits, and PyTorch with hooks where it is installed. Prints a report in
# Markdown and keeps it in $OUT/bench.md (build/gpu). `make gpu-trace` (this with `trace`): a table of every kernel instead, in
# $OUT/trace.md. LIMIT: seconds for all of it (540). A part that fails leaves the others.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/gpu/machine.sh
what=${1:-bench}
figures=$OUT/figures.txt
parts=${PARTS:-gpt2 gemma llama dictionaries draws}

# part SECONDS NAME ARGUMENTS...
part() {
  local seconds=$1 name=$2; shift 2
  limited "$seconds" $line_buffered "$programs/bench_gpu" --part "$name" "$@" 2>&1
  local rc=$?
  [ $rc -eq 0 ] && return 0
  echo; echo "FAIL  $name: $([ $rc -eq 124 ] && echo "not done in time" || echo "status $rc")"
  return 1
}

peer() {
  if python3 -c 'import torch, transformers; assert torch.cuda.is_available()' 2>/dev/null; then
    limited 240 python3 -u tests/gpu/peer_torch.py --figures "$figures" --until "$(seconds_left 230)" 2>&1 | grep -v -i warning ||
      echo "FAIL  PyTorch with hooks: not done"
  else
    echo "skip: PyTorch with hooks (torch with CUDA and transformers are not installed)"
  fi
}

bench() {
  failed=0
  echo "# gpu-$what, $(git rev-parse --short HEAD 2>/dev/null || echo 'no git'), $(date -u +%FT%TZ)"
  machine_ready "gpu-$what"
  if [ "$what" = trace ]; then
    for name in $parts; do part 60 "$name" --trace ${TINY:+--tiny} | { if command -v c++filt >/dev/null; then c++filt -p; else cat; fi; } || failed=1; done
    echo; echo "$SECONDS s"; return $failed
  fi
  : >"$figures"
  for name in $parts; do echo; part 120 "$name" --figures "$figures" ${TINY:+--tiny} || failed=1; done
  echo
  [ "${PEER:-}" = no ] || peer
  echo; echo "## Goals"; echo
  awk -f tests/gpu/goals.awk "$figures"
  echo; echo "GPU afterwards: $(nvidia-smi --query-gpu=clocks.sm,clocks.mem,temperature.gpu,power.draw --format=csv,noheader 2>/dev/null | head -n 1); $SECONDS s"
  return $failed
}

bench 2>&1 | tee "$OUT/$what.md"
exit "${PIPESTATUS[0]}"
