#!/usr/bin/env bash
# Run a command (zenml, mlflow, dvc, python …) as a client of this checkout's stack.
# Usage: run-client.sh COMMAND [ARGUMENT …], for example: run-client.sh zenml stack list
set -Eeuo pipefail
here=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

main() {
  [ $# -gt 0 ] || die "name a command, for example: scripts/run-client.sh zenml stack list"
  require_setup
  PATH=$VENV/bin:$PATH exec "$PYTHON_BIN" -m src.client "$here" "$@"
}

main "$@"
