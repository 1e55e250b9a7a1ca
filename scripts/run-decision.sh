#!/usr/bin/env bash
# Decide on a grid's runs, and use what was decided. The services must run.
# Usage: run-decision.sh report|promote|rollback|predict|export
# Variables: RUN (promote: an MLflow run's name or id), FORCE=1 with REASON='…' (promote: whatever the
# gate says; report: decide on an incomplete grid), SOURCE
# (predict: a picture, a folder, a video or a pattern in quotes), FORMAT (export)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

main() {
  require_setup
  [ -f "$STATE/backend" ] || die "the services don't run: make up"
  case $1 in
    report)
      exec "$PYTHON_BIN" -m src.decision report ${FORCE:+--force} ${REASON:+--reason "$REASON"}
      ;;
    promote)
      [ -n "${RUN:-}" ] || die "name a run: make promote RUN=zenml_yolo_tiny_e5_416 (or an MLflow run's id)"
      exec "$PYTHON_BIN" -m src.decision promote "$RUN" ${FORCE:+--force} ${REASON:+--reason "$REASON"}
      ;;
    rollback) exec "$PYTHON_BIN" -m src.decision rollback ;;
    export)
      [ -n "${FORMAT:-}" ] || die "name a format: make export FORMAT=onnx (or openvino, torchscript, …)"
      exec "$PYTHON_BIN" -m src.champion.export "$FORMAT"
      ;;
    predict)
      [ -n "${SOURCE:-}" ] || die "name what to look at: make predict SOURCE=picture.jpg"
      exec "$PYTHON_BIN" -m src.champion.predict "$SOURCE"
      ;;
  esac
}

main "$@"
