#!/usr/bin/env bash
# Print the services' last log lines.
# Usage: show-logs.sh
# Variables: SERVICE (object-store, mlflow, zenml, on Docker mysql; default all), LINES (default 100), FOLLOW=1
set -Eeuo pipefail
lines=${LINES:-100} # before bash sets its own LINES
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/backend.sh"

main() {
  case ${SERVICE:-} in
    '' | object-store | mlflow | zenml | mysql) ;;
    *) die "SERVICE=$SERVICE: choose object-store, mlflow, zenml, or on Docker mysql" ;;
  esac
  load_settings
  choose_backend
  [ -d "$BACKEND_STATE" ] || die "there are no logs yet: make up"
  backend_logs "$lines" "${SERVICE:-}"
}

main "$@"
