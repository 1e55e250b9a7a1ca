#!/usr/bin/env bash
# Run the training pipeline: once, or for every cell of the grid.
# Usage: run-pipeline.sh baseline|grid
# Variables: EPOCHS, IMGSZ, BATCH, SEED (in place of the recipe's), FORCE=1 (without the cache)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

main() {
  require_setup
  exec "$PYTHON_BIN" -m "src.zenml_pipelines.run_yolo_pipeline_$1" \
    ${EPOCHS:+--epochs "$EPOCHS"} ${IMGSZ:+--imgsz "$IMGSZ"} ${BATCH:+--batch "$BATCH"} \
    ${SEED:+--seed "$SEED"} ${FORCE:+--force}
}

main "$@"
