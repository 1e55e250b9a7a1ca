#!/usr/bin/env bash
# Run the training pipeline: once, or for every cell of the grid.
# Usage: run-pipeline.sh baseline|grid
# Variables: EPOCHS, IMGSZ, BATCH, SEED (in place of the recipe's; read by the pipeline's command
# line, like RAY_ADDRESS), FORCE=1 (without the cache);
# for the grid GRID (a file in place of the shipped one), JOBS (cells side by side) and RAY_ADDRESS
# (host:port of a Ray cluster to run on, see start-ray-node.sh)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

main() {
  require_setup
  export NOTICES_SHOWN=1 # by ensure-dataset.sh, which make runs first
  if [ "$1" = grid ]; then set -- grid ${GRID:+--grid "$GRID"} ${JOBS:+--jobs "$JOBS"}; fi
  exec "$PYTHON_BIN" -m "src.zenml_pipelines.run_yolo_pipeline_$1" \
    ${FORCE:+--force} "${@:2}"
}

main "$@"
