#!/usr/bin/env bash
# `make gpu-bench`: speed on a real device beside its limits, and PyTorch with hooks where it is installed. Prints a report in
# Markdown and keeps it in $OUT/bench.md (build/gpu), with figures.txt and clocks.csv beside it. `make gpu-trace` (this with `trace`): a
# table of every kernel instead, in $OUT/trace.md. LIMIT: seconds for all of it (540). PARTS: which of them; PEER=no leaves PyTorch
# out; BACKEND=cuda:0+serial: another name of the device; TINY=1: small shapes, to see that it runs. A part that fails or hangs leaves the others, and what it had found.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/gpu/machine.sh
what=${1:-bench}
figures=$OUT/figures.txt
parts=${PARTS:-gpt2 gemma llama dictionaries draws}
python=${PEER_PYTHON:-python3}

# part SECONDS NAME ARGUMENTS...
part() {
  local seconds=$1 name=$2; shift 2
  limited "$seconds" $line_buffered "$programs/bench_gpu" --part "$name" ${BACKEND:+--backend "$BACKEND"} "$@" 2>&1
  local rc=$?
  [ $rc -eq 0 ] && return 0
  echo; echo "FAIL  $name: $(out_of_time $rc && echo "not done in time" || echo "status $rc")"
  return 1
}

# Clocks, power and temperature, all the while; and who asks keeps the driver from putting the device to sleep between programs.
watch_clocks() {
  local reasons=clocks_event_reasons.active # older drivers have it by another name; where neither is known, do without
  [[ $(smi $reasons) == *0x* ]] || reasons=clocks_throttle_reasons.active
  [[ $(smi $reasons) == *0x* ]] || reasons=pstate
  timeout -k 5 "$(seconds_left 99999)" $line_buffered nvidia-smi -l 2 --format=csv,nounits \
    --query-gpu=timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,$reasons >"$OUT/clocks.csv" 2>/dev/null &
  helpers="${helpers:-} $!"
  trap 'kill $helpers 2>/dev/null' EXIT
}
clocks() { echo "clocks (SM, memory, W, degrees, throttled by) after $1: $(tail -n 1 "$OUT/clocks.csv" 2>/dev/null | sed 's/^[^,]*, *//')"; }

measure_limits() {
  echo; echo "## Limits of the device"; echo
  build_limits
  [ -n "$limits" ] || { echo "skip: limits of the device (limits.cu was not built, see build/gpu/limits.log)"; return 0; }
  limited 40 $line_buffered "$limits" --figures "$figures" ${TINY:+--tiny} 2>&1 && return 0
  echo "FAIL  limits of the device"
  return 1
}

peer() {
  if ! timeout 120 "$python" -c "import torch, transformers; assert '${PEER_DEVICE:-cuda}' == 'cpu' or torch.cuda.is_available()" 2>/dev/null; then
    echo "skip: PyTorch with hooks (torch with CUDA and transformers are not installed)"; return 0
  fi
  PYTHONUNBUFFERED=1 limited 240 "$python" -W ignore tests/gpu/peer_torch.py --figures "$figures" --device "${PEER_DEVICE:-cuda}" \
    --until "$(seconds_left $((220 * ${PATIENCE:-1})))" ${TINY:+--tiny} 2>"$OUT/peer.log"
  local rc=$?
  [ $rc -eq 0 ] && return 0
  out_of_time $rc && { echo; echo "skip: the rest of PyTorch (no time left)"; return 0; }
  echo; echo "FAIL  PyTorch with hooks: status $rc"; tail -n 5 "$OUT/peer.log"
  return 1
}

trace() {
  local name
  echo; echo "Each kernel alone, between two events: none begins early, and each has the two events in it (limits say how much: in bench.md)."
  for name in $parts; do part 60 "$name" --trace ${TINY:+--tiny} | { if command -v c++filt >/dev/null; then c++filt -p; else cat; fi; } || failed=1; done
  echo; echo "$SECONDS s"
}

bench() {
  local name read
  : >"$figures"
  watch_clocks
  measure_limits || failed=1
  read=$(sed -n 's/^device|limits|read|//p' "$figures" | tail -n 1)
  echo; echo "## Models, dictionaries, draws"
  for name in $parts; do
    echo; part 120 "$name" --figures "$figures" --read "${read:-0}" ${TINY:+--tiny} || failed=1
    echo; clocks "$name"
  done
  echo
  [ "${PEER:-}" = no ] || peer || failed=1
  echo; echo "## Goals${BACKEND:+, on $BACKEND}"; echo
  [ -z "${TINY:-}" ] || { echo "Small shapes (TINY): no figure here means anything."; echo; }
  awk -f tests/gpu/goals.awk "$figures"
  echo; echo "$SECONDS s"
}

report() {
  failed=0
  echo "# gpu-$what, $(which_commit), $(date -u +%FT%TZ)"
  machine_ready "gpu-$what"
  "$what"
  return $failed
}

report 2>&1 | tee "$OUT/$what.md"
exit "${PIPESTATUS[0]}"
