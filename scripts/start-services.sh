#!/usr/bin/env bash
# Start the services, wait until they are healthy, print their addresses. A second run changes
# nothing but what .env changed.
# Usage: start-services.sh [--show]     --show: the pages too when all runs already
# Variables: MODE, and every setting of .env.example
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/services.sh"
. "$ROOT/scripts/lib/secrets.sh"
. "$ROOT/scripts/lib/wait.sh"
. "$ROOT/scripts/lib/where.sh"

forget_backend_unless_running() {
  local status=$? states
  [ "$status" != 0 ] || return 0
  states=$(backend_states)
  grep -qv "$(printf '\tstopped\t')" <<<"$states" || rm -f "$STATE/backend"
}

main() {
  local show=${1:-} silent=''
  load_settings
  choose_backend
  if [ -f "$STATE/backend" ] && services_settled; then
    [ -z "$show" ] || print_pages
    return
  fi
  ensure_private_folder "$STATE"
  take_lock services "make up"
  choose_backend # another one may have started them meanwhile
  backend_check || exit 1
  if [ -f "$STATE/backend" ]; then
    silent=$(running_but_silent)
  else
    say "backend: $BACKEND ($BACKEND_REASON)"
    show=--show
    # A first start that fails binds nobody to this backend.
    trap forget_backend_unless_running EXIT
  fi
  ensure_private_folder "$BACKEND_STATE"
  echo "$BACKEND" | ensure_file "$STATE/backend" 600
  # What the servers are given at their first start: to change a password later takes the old one.
  [ -f "$BACKEND_STATE/applied.env" ] || "$PYTHON_BIN" -m src.bootstrap.applied || exit 1
  backend_up
  # shellcheck disable=SC2086 # one word for each
  wait_until_healthy $silent
  # What was killed, or gave up waiting, could not say so itself; without a stack nothing has run.
  [ ! -f "$BACKEND_STATE/stack-id" ] || "$PYTHON_BIN" -m src.zenml_pipelines.runs
  [ -z "$show" ] || print_pages
}

running_but_silent() {
  local service state running=()
  while IFS=$'\t' read -r service state _; do
    if [ "$state" = running ] && [ -n "$(about URL "$service")" ] && ! is_optional "$service"; then running+=("$service"); fi
  done < <(backend_states)
  [ ${#running[@]} = 0 ] || unhealthy "${running[@]}"
}

main "$@"
