#!/usr/bin/env bash
# Looks through every source with gcc and clang at -Wall -Wextra -Wshadow, warnings as errors. A compiler that is
# not installed is skipped by name. Nothing is optimised here, so what gcc finds on the way (-Wmaybe-uninitialized and its kind)
# is found by the build itself, with WERROR=1.
set -uo pipefail
cd "$(dirname "$0")/../.."
flags='-std=c11 -D_GNU_SOURCE -I. -O1 -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Werror -ffp-contract=off'
flags="$flags -DSTEERD_VERSION=\"0\" -DSTEERD_COMMIT=\"0\""
bad=0
for compiler in gcc clang; do
  command -v $compiler >/dev/null || { echo "skip: $compiler is not installed"; continue; }
  check() {
    case $2 in
      *_avx2.c) extra='-mavx2 -mfma -mf16c' ;;
      *_avx512.c) extra='-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c' ;;
      */cuda/*) extra='-isystem tests/cuda_host' ;;
      *) extra= ;;
    esac
    $1 $3 $extra -fsyntax-only "$2"
  }
  export -f check
  find core api server tests -name '*.c' -print0 |
    xargs -0 -P "$(nproc)" -I{} bash -c 'check "$0" "$1" "$2"' $compiler {} "$flags" || bad=1
  [ $bad -eq 0 ] && echo "warnings: none with $compiler"
done
exit $bad
