#!/usr/bin/env bash
# Run src/services/launcher.py where a service runs, with that service's settings.
# Usage: run-in-service.sh SERVICE ARGUMENT…     for example: run-in-service.sh mlflow gc
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/services.sh"

main() {
  load_settings
  choose_backend
  backend_launch "$@"
}

main "$@"
