# wait.sh: wait for the services by polling, with a deadline, and stop early when one has died.
# Needs services.sh and a chosen backend.

services_healthy() { "$PYTHON_BIN" -m src.services.health --quiet "$@"; }

# Whether `make up` has nothing to do.
services_settled() { backend_settled && services_healthy; }

# A line for each service that gave up, which says why, or its last log lines; return 1 when none did.
report_failures() {
  local service state detail why failed=1
  while IFS=$'\t' read -r service state detail; do
    [ "$state" = failed ] || continue
    why=$(refusal "$service")
    if [ -n "$why" ]; then
      error "$service: $why"
    else
      error "$service died: $detail; its last log lines:"
      FOLLOW='' backend_logs 20 "$service" >&2
    fi
    failed=0
  done < <(backend_states)
  return "$failed"
}

# The services among those named that don't answer, and those whose files were deleted under them.
unhealthy() { awk -F'\t' '$2 != "healthy" { print $1 }' < <("$PYTHON_BIN" -m src.services.health "$@"); }
without_files() { awk -F'\t' '$2 == "its files were deleted" { print $1 }' < <("$PYTHON_BIN" -m src.services.health "$@"); }

# Wait; services named here ran before and were not healthy: without their files they are started again
# at once, the others if they still don't answer after a while.
wait_until_healthy() {
  local deadline=$((SECONDS + START_TIMEOUT)) patience=$((SECONDS + START_TIMEOUT / 3)) service
  for service in ${1:+$(without_files "$@")}; do
    say "the files of $service were deleted while it ran: starting it with new ones"
    backend_restart "$service"
  done
  until services_healthy --within 4; do
    if report_failures; then exit 1; fi
    if [ $# -gt 0 ] && [ "$SECONDS" -ge "$patience" ]; then
      for service in $(unhealthy "$@"); do
        say "$service runs and does not answer: starting it again"
        backend_restart "$service"
      done
      set --
      deadline=$((SECONDS + START_TIMEOUT))
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then
      "$PYTHON_BIN" -m src.services.health >&2 || error "not healthy after $START_TIMEOUT s (START_TIMEOUT): see make logs"
      exit 1
    fi
  done
}
