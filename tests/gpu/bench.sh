#!/usr/bin/env bash
# `make gpu-bench`: speed on a real device beside its limits, and PyTorch with hooks where it is installed. Prints a report
# in Markdown and keeps it in build/gpu/bench.md.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/gpu/machine.sh
mkdir -p build/gpu

bench() {
  echo "# gpu-bench, $(git rev-parse --short HEAD 2>/dev/null || echo 'no git'), $(date -u +%F)"
  machine_ready gpu-bench
  build/gpu/bench_gpu || return 1
  echo
  if python3 -c 'import torch, transformers; assert torch.cuda.is_available()' 2>/dev/null; then
    python3 tests/gpu/peer_torch.py
  else
    echo "skip: PyTorch with hooks (torch with CUDA and transformers are not installed)"
  fi
}

bench 2>&1 | tee build/gpu/bench.md
exit "${PIPESTATUS[0]}"
