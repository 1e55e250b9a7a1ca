#!/usr/bin/env bash
# End this checkout's Ray node and delete its files; cells that it runs go to other nodes.
# Usage: stop-ray-node.sh
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/ray.sh"

main() {
  if [ ! -d "$STATE/ray" ] && ! ray_running; then
    say "Ray node: not running"
    return
  fi
  take_lock services "make ray-stop"
  "$PYTHON_BIN" -m src.services.processes end-ray-node
  rm -rf "$(ray_folder)" "$STATE/ray"
  say "Ray node: stopped"
}

main "$@"
