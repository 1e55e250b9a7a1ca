#!/usr/bin/env bash
# Print the services' last log lines.
# Usage: show-logs.sh
# Variables: SERVICE (object-store, mlflow or zenml; default all), LINES (default 100), FOLLOW=1
set -Eeuo pipefail
lines=${LINES:-100} # before bash sets its own LINES
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/backend.sh"

main() {
  case ${SERVICE:-} in
    '' | object-store | mlflow | zenml) ;;
    *) die "SERVICE=$SERVICE: choose object-store, mlflow or zenml" ;;
  esac
  load_settings
  choose_backend
  [ -d "$BACKEND_STATE" ] || die "there are no logs yet: make up"
  backend_logs "$lines" "${SERVICE:-}"
}

main "$@"
