#!/usr/bin/env bash
# Print the services' last log lines.
# Usage: show-logs.sh
# Variables: SERVICE (one of those that make status shows; default all), LINES (default 100), FOLLOW=1
set -Eeuo pipefail
lines=${LINES:-100} # before bash sets its own LINES
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/services.sh"

main() {
  load_settings
  choose_backend
  # shellcheck disable=SC2086 # one word for each
  [ -z "${SERVICE:-}" ] || is_one_of "$SERVICE" $SERVICES ||
    die "SERVICE=$SERVICE: on the $BACKEND backend choose one of: $SERVICES"
  [ -d "$BACKEND_STATE" ] || die "there are no logs yet: make up"
  backend_logs "$lines" "${SERVICE:-}"
}

main "$@"
