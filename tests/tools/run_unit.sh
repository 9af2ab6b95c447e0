#!/usr/bin/env bash
# Runs unit test programs, UNIT_JOBS of them at a time (1); fails when any fails. `run_unit.sh PROGRAM...`
set -u
export LIMIT=${UNIT_LIMIT:-1200}

tell() {
  local program=$1 log=$1.log status=$2
  [ "$status" -eq 124 ] && echo "no end within $LIMIT s (UNIT_LIMIT)" >>"$log"
  if [ "$status" -eq 0 ]; then
    echo "ok    $(basename "$program")  $(grep -ao '[0-9]* test(s) run' "$log" | tail -n 1) $(grep -ac 'SKIPPED' "$log" | sed 's/^0$//; s/..*/(skips: &)/')"
    grep -a 'skip:' "$log" | sort -u
  else
    echo "FAIL  $(basename "$program")"
    cat "$log"
  fi
}

# A test that hangs must end too; the slowest takes half a minute of one processor, ten times that under a sanitizer, and a busy machine
# gives it a tenth of one.
one() {
  timeout "$LIMIT" "$1" >"$1.log" 2>&1
  local status=$?
  echo "$status" >"$1.status"
  flock "$RESULTS" bash -c 'tell "$@"' tell "$1" "$status"
}
export -f one tell

RESULTS=$(mktemp) && export RESULTS
trap 'rm -f "$RESULTS"' EXIT
rm -f "${@/%/.status}"
printf '%s\0' "$@" | xargs -0 -n 1 -P "${UNIT_JOBS:-1}" bash -c 'one "$0"'
passed=0 failed=0
for program in "$@"; do
  [ "$(cat "$program.status" 2>/dev/null)" = 0 ] && passed=$((passed + 1)) || failed=$((failed + 1))
done
echo "unit programs: $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
