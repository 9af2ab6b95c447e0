#!/usr/bin/env bash
# `make gpu-rehearse`: gpu-bench and gpu-trace from end to end where no GPU is, so that nothing of them runs for the first time on a
# machine that is at hand for minutes: small shapes on the emulator of CUDA (tests/cuda_host), an nvidia-smi that pretends, PyTorch on the
# processor where PEER_PYTHON (python3) has it. CHECK=1: gpu-check too, which takes the better part of an hour there. Reports are in
# build/gpu/rehearsal. Fails where a part fails, a goal is not measured, or a program that crashes or hangs takes others with it.
set -uo pipefail
cd "$(dirname "$0")/../.."
export OUT=$PWD/build/gpu/rehearsal LIMIT=${LIMIT:-7200} PATIENCE=30 TINY=1 PEER_DEVICE=cpu
export STEERD_CUDA_LIBRARY=${STEERD_CUDA_LIBRARY:-$PWD/build/release/emulated/steerd-cuda-emulated.so}
export STEERD_GPU_LIMITS=${STEERD_GPU_LIMITS:-$PWD/build/release/emulated/limits}
mkdir -p "$OUT/bin"
cat >"$OUT/bin/nvidia-smi" <<'END'
#!/bin/sh
case "$*" in
*"-l 2"*) echo "timestamp, clocks.current.sm [MHz]"; while :; do echo "2026/01/01 00:00:00.000, 1980, 3201, 512.30, 41, 0x0000000000000000"; sleep 2; done ;;
*reasons.active*) echo "0x0000000000000000" ;;
*-L*) echo "GPU 0: an emulated GPU (UUID: GPU-0)" ;;
*compute_cap*) echo "9.0" ;;
*) echo "an emulated GPU, 580.00, 4096 MiB, 345 MHz, 3201 MHz" ;;
esac
END
chmod +x "$OUT/bin/nvidia-smi"
export PATH=$OUT/bin:$PATH

failed=0
# must FILE PATTERN WHAT
must() { grep -qaE -- "$2" "$OUT/$1" || { failed=1; echo "rehearsal: $3 ($OUT/$1 has no line like '$2')"; }; }
wrong() { failed=1; echo "rehearsal: $1"; }

tests/gpu/bench.sh || wrong 'gpu-bench failed'
must bench.md '^clocks .* after draws: 1980' 'clocks are not there'
if "${PEER_PYTHON:-python3}" -c 'import torch, transformers' 2>/dev/null; then
  must bench.md '^goals: [0-9]+ met, [0-9]+ missed, 0 not measured$' 'a goal was not measured'
else
  must bench.md '^skip: PyTorch with hooks' 'PyTorch is not named as missing'
  must bench.md '^goals: [0-9]+ met, [0-9]+ missed, 9 not measured$' 'a goal was not measured'
fi
tests/gpu/bench.sh trace >/dev/null || wrong 'gpu-trace failed'
build/gpu/bench_gpu --part answers --tiny >"$OUT/answers.md" 2>&1 || wrong 'the answers of the bench are wrong'
must answers.md '^[|] dictionary .* right [|]$' 'answers were not looked at'
for what in 'attend' 'linear .* 1 rows' 'linear .* 256 rows' 'encode' 'draw, 64 rows'; do must trace.md "^\| $what.*\| [0-9.]+ \|" 'a kernel is not in the table'; done

# Parts that fail, a device that cannot be opened, a program that hangs.
cp "$OUT/bench.md" "$OUT/bench-whole.md"
PARTS="unknown draws" PEER=no tests/gpu/bench.sh >/dev/null && wrong 'a part that fails is no failure'
must bench.md '^FAIL  unknown: status 2$' 'what failed is not named'
must bench.md '^[|] draws from 9000 logits' 'what comes behind a failure did not run'
must bench.md '^goals: 0 met, 0 missed, 27 not measured$' 'the goals are not there'
STEERD_CUDA_LIBRARY=/dev/null tests/gpu/check.sh >/dev/null && wrong 'a library that cannot be opened is no failure'
must check.md '^FAIL  opening the device: status 1$' 'a device that cannot be opened is not named'
must check.md 'file too short' 'why it cannot be opened is not said'
STEERD_GPU_LIMITS=$OUT/hangs PATIENCE=1 LIMIT=30 PARTS="dictionaries" PEER=no bash -c 'printf "#!/bin/sh\nsleep 1000\n" >"$STEERD_GPU_LIMITS"; chmod +x "$STEERD_GPU_LIMITS"
  tests/gpu/bench.sh' >/dev/null && wrong 'a program that hangs is no failure'
must bench.md '^FAIL  limits of the device' 'what hangs is not named'
must bench.md '^## Goals' 'a hanging program took the goals with it'

BACKEND=cuda:0+serial PARTS=gpt2 PEER=no tests/gpu/bench.sh >/dev/null || wrong 'gpu-bench of a device by another name failed'
must bench.md '^## Goals, on cuda:0.serial$' 'the name of the device is not told'
mv "$OUT/bench-whole.md" "$OUT/bench.md"

if [ -n "${CHECK:-}" ]; then
  tests/gpu/check.sh || wrong 'gpu-check failed'
  must check.md '^gpu-check: passed' 'gpu-check did not end'
fi
[ $failed -eq 0 ] && echo 'rehearsal: every script ran to its end'
exit $failed
