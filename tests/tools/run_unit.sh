#!/usr/bin/env bash
# Runs unit test programs one after the other; fails when any fails. `run_unit.sh PROGRAM...`
set -u
LIMIT=${UNIT_LIMIT:-1200}
passed=0 failed=0
for program in "$@"; do
  log=$program.log
  # A test that hangs must end too; the slowest takes half a minute of one processor, ten times that under a sanitizer, and a busy machine
  # gives it a tenth of one.
  timeout "$LIMIT" "$program" >"$log" 2>&1
  status=$?
  [ "$status" -eq 124 ] && echo "no end within $LIMIT s (UNIT_LIMIT)" >>"$log"
  if [ "$status" -eq 0 ]; then
    passed=$((passed + 1))
    echo "ok    $(basename "$program")  $(grep -ao '[0-9]* test(s) run' "$log" | tail -n 1) $(grep -ac 'SKIPPED' "$log" | sed 's/^0$//; s/..*/(skips: &)/')"
    grep -a 'skip:' "$log" | sort -u
  else
    failed=$((failed + 1))
    echo "FAIL  $(basename "$program")"
    cat "$log"
  fi
done
echo "unit programs: $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
