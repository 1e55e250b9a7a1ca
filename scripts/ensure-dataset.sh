#!/usr/bin/env bash
# Build or import the data set in use where it is missing or its source has changed, validate it,
# version it with DVC and push it to the object store.
# Usage: ensure-dataset.sh
# Variables: DATASET (auto, coco128, synthetic, or a folder, archive, data.yaml, COCO JSON or address),
# NAME (of an imported set), COCO128_URL, WEIGHTS, FORCE=1 (build it again)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

main() {
  require_setup
  exec "$PYTHON_BIN" -m src.datasets ${FORCE:+--force}
}

main "$@"
