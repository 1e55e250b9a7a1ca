#!/usr/bin/env bash
# Start the services, wait until they are healthy, print their addresses. A second run changes
# nothing but what .env changed.
# Usage: start-services.sh
# Variables: MODE, and every setting of .env.example
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/backend.sh"
. "$ROOT/scripts/lib/wait.sh"

main() {
  load_settings
  take_lock
  choose_backend
  backend_check || exit 1
  [ -f "$STATE/backend" ] || say "backend: $BACKEND ($BACKEND_REASON)"
  echo "$BACKEND" >"$STATE/backend"
  backend_up
  wait_until_healthy
  printf '%-14s%s\n' ZenML "$ZENML_URL" MLflow "$MLFLOW_URL" 'Object store' "$STORE_URL"
}

main "$@"
