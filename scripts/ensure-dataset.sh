#!/usr/bin/env bash
# Build data/tiny_person where it is missing or its settings changed, validate it, version it with
# DVC and push it to the object store.
# Usage: ensure-dataset.sh
# Variables: DATASET, COCO128_URL, WEIGHTS, FORCE=1 (build it anew)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

main() {
  require_setup
  exec "$PYTHON_BIN" -m src.datasets ${FORCE:+--force}
}

main "$@"
