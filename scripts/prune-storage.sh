#!/usr/bin/env bash
# Free what was deleted in the pages: show what would go, ask, say how many bytes that freed.
# Usage: prune-storage.sh
# Variables: FORCE=1 (don't ask)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

main() {
  local options=()
  require_setup
  [ "${FORCE:-}" != 1 ] || options=(--yes)
  exec "$PYTHON_BIN" -m src.prune ${options[@]+"${options[@]}"}
}

main "$@"
