#!/usr/bin/env bash
# Print what runs and whether it is healthy. Exit status 0 when everything is.
# Usage: show-status.sh
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/services.sh"

main() {
  local service state states health answer failed=0
  load_settings
  if [ ! -f "$STATE/backend" ]; then
    say "services: not running: make up"
    exit 1
  fi
  choose_backend
  states=$(service_states)
  # shellcheck disable=SC2046 # one word for each
  health=$("$PYTHON_BIN" -m src.services.health $(cut -f1 <<<"$states")) || failed=1
  say "backend: $BACKEND"
  printf '%-14s%-10s%-16s%s\n' SERVICE STATE HEALTH ADDRESS
  while IFS=$'\t' read -r service state _; do
    answer=$(told_of "$service" <<<"$health")
    # An engine's own check may come round later than what answers already.
    if [ "$state $answer" = 'starting healthy' ]; then state=running; fi
    printf '%-14s%-10s%-16s%s\n' "$service" "$state" "$answer" "$(about URL "$service")"
  done <<<"$states"
  exit "$failed"
}

main "$@"
