#!/usr/bin/env bash
# Start the services, wait until they are healthy, print their addresses. A second run changes
# nothing but what .env changed.
# Usage: start-services.sh
# Variables: MODE, and every setting of .env.example
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/services.sh"
. "$ROOT/scripts/lib/secrets.sh"
. "$ROOT/scripts/lib/wait.sh"

forget_backend_unless_running() {
  local status=$?
  [ "$status" = 0 ] || backend_states | grep -qv "$(printf '\tstopped\t')" || rm -f "$STATE/backend"
}

main() {
  local service
  load_settings
  take_lock
  choose_backend
  backend_check || exit 1
  [ -f "$STATE/backend" ] || say "backend: $BACKEND ($BACKEND_REASON)"
  # A first start that fails binds nobody to this backend.
  [ -f "$STATE/backend" ] || trap forget_backend_unless_running EXIT
  ensure_private_folder "$BACKEND_STATE"
  echo "$BACKEND" >"$STATE/backend"
  # What the servers are given at their first start: to change a password later takes the old one.
  [ -f "$BACKEND_STATE/applied.env" ] || "$PYTHON_BIN" -m src.bootstrap.applied || exit 1
  backend_up
  wait_until_healthy
  for service in $SHOWN; do printf '%-14s%s\n' "$(about LABEL "$service")" "$(about URL "$service")"; done
}

main "$@"
