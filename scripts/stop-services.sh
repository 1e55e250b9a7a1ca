#!/usr/bin/env bash
# Stop the services; their data stays.
# Usage: stop-services.sh
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/services.sh"

main() {
  [ -f "$STATE/backend" ] || { say "services: not running" && return; }
  load_settings
  take_lock stack "make down" --now
  take_lock services "make down"
  MODE=auto
  choose_backend
  backend_down
  rm -f "$STATE/backend"
  say "services: stopped ($BACKEND); their data stay: make up brings them back"
}

main "$@"
