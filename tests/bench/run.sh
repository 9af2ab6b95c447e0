#!/usr/bin/env bash
# Runs every benchmark program of a build, the limits of the machine first. `run.sh BUILD_DIR`
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:?usage: run.sh BUILD_DIR}

run() {
  echo "== $*"
  "$@"
  echo
}

echo "processor: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) threads, load $(cut -d' ' -f1 /proc/loadavg)"
echo
run "$build/bench/bench_limits"
run "$build/bench/bench_kernels"
run "$build/bench/bench_encode"
run "$build/bench/bench_dict"

# A model of the size of GPT-2 small with random weights, made once: speed does not depend on what they are.
data=build/bench-data
for dtype in f32 bf16; do
  [ -f "$data/$dtype/config.json" ] || /usr/bin/python3 tests/tools/make_gpt2_small_shaped.py --out "$data/$dtype" \
    --dtype "$dtype" --dictionary 2048,11,last >/dev/null
  run "$build/bench/bench_model" "$data/$dtype"
done

# From start to ready, and memory beside the size of the file.
run /usr/bin/python3 tests/bench/bench_start.py --binary build/steerd "$data/f32" "$data/bf16"

# Statistics of a dictionary of the usual size at layer 7.
[ -f "$data/stats/config.json" ] || /usr/bin/python3 tests/tools/make_gpt2_small_shaped.py --out "$data/stats" \
  --dictionary 24576,7,7-res-jb >/dev/null
run "$build/bench/bench_stats" "$data/stats"

# Edits, taps and the patching matrix.
run "$build/bench/bench_lab" "$data/f32"

# PyTorch as a peer, where somebody has it.
if [ -n "${STEERD_TORCH_PYTHON:-}" ]; then
  run "$STEERD_TORCH_PYTHON" tests/bench/peer_torch.py --folder "$data/f32" --bench "$build/bench/bench_model"
else
  echo "skip: the PyTorch peer (set STEERD_TORCH_PYTHON to a Python that has torch and transformers)"
  echo
fi

# llama.cpp as a peer: its llama-batched-bench, built by whoever has it, and a Python with gguf and numpy that writes its files.
if [ -n "${STEERD_LLAMA_BATCHED_BENCH:-}" ] && [ -n "${STEERD_LLAMA_PYTHON:-}" ]; then
  for dtype in f32 bf16; do
    [ -f "$data/llama-$dtype/config.json" ] ||
      /usr/bin/python3 tests/tools/make_llama_shaped.py --out "$data/llama-$dtype" --dtype "$dtype"
  done
  run "$STEERD_LLAMA_PYTHON" tests/bench/peer_llama.py --peer "$STEERD_LLAMA_BATCHED_BENCH" --bench "$build/bench/bench_streams" \
    "$data/f32" "$data/bf16" "$data/f32?q8" "$data/llama-f32" "$data/llama-bf16" "$data/llama-bf16?q8"
else
  echo "skip: the llama.cpp peer (set STEERD_LLAMA_BATCHED_BENCH to its program, STEERD_LLAMA_PYTHON to a Python that has gguf and numpy)"
  echo
fi

for program in "$build"/bench/bench_*; do
  case $(basename "$program") in
    bench_limits | bench_kernels | bench_encode | bench_dict | bench_model | bench_stats | bench_lab | bench_streams | *.d | *.log) continue ;;
  esac
  [ -x "$program" ] && run "$program"
done
