#!/usr/bin/env bash
# Open a shell in which zenml, mlflow, dvc, yolo and python are this checkout's and find its stack.
# Usage: open-shell.sh
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

main() {
  require_setup
  [ -t 0 ] || exec "$ROOT/scripts/run-client.sh" bash # commands on stdin
  say "zenml, mlflow, dvc, yolo and python are this checkout's; exit leaves this shell"
  # A start-up file of the user's could put another environment first.
  exec "$ROOT/scripts/run-client.sh" bash --rcfile <(
    printf '%s\n' '[ ! -f ~/.bashrc ] || . ~/.bashrc' "PATH=$(printf %q "$VENV/bin"):\$PATH" \
      "PS1='(zenml-cv-yolo) '\$PS1"
  )
}

main "$@"
