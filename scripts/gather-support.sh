#!/usr/bin/env bash
# Gather versions, settings, states, doctor's findings and ends of logs, without secrets, in
# support.tar.gz, small enough for an issue. Works in a checkout that is not set up, too.
# Usage: gather-support.sh
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

main() {
  local python=$PYTHON_BIN
  "$python" -c '' 2>/dev/null || python=$(command -v "${PYTHON:-python3}") ||
    die "Python 3.11, 3.12 or 3.13 is needed: install one, or name it: make support PYTHON=/path/to/python3.12"
  exec "$python" "$ROOT/src/support.py" "$ROOT/support.tar.gz"
}

main "$@"
