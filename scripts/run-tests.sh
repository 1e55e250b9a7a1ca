#!/usr/bin/env bash
# Run the tests: unit (no servers), shell (bats), e2e (whole stacks on ports and in folders of their
# own, beside whatever runs here, two at a time), docker (the same end-to-end code on Docker),
# faults (every bad day and their pairs, commands killed at each call, odd machines; their figures go
# to docs/reliability.md), lab (each command of docs/lab.md), own_data (sets of one's own, from import to
# prediction), serve (the champion's service under load and beside Ultralytics), these four with
# MODE=docker too, and statistics (thousands of simulated decisions).
# Usage: run-tests.sh SUITE…     unit, shell, e2e, docker, faults, lab, own_data, serve, statistics
# Variables: ONLY (suites in place of those named)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

run_unit() { "$PYTHON_BIN" -m pytest -q -n 2 -m "not statistics" tests/unit; }
run_statistics() { "$PYTHON_BIN" -m pytest -v -s -m statistics tests/unit; }
run_shell() { "$VENV/bin/bats" tests/shell; }
run_e2e() { TEST_MODE=native "$PYTHON_BIN" -m pytest -n 2 --dist loadfile --durations 20 -m "not faults" --ignore tests/e2e/test_own_data.py --ignore tests/e2e/test_lab.py tests/e2e; }
run_serve() { TEST_LONG=1 TEST_MODE=${MODE:-native} "$PYTHON_BIN" -m pytest -v -s tests/e2e/test_champion.py; }
run_own_data() { TEST_MODE=${MODE:-native} "$PYTHON_BIN" -m pytest -v tests/e2e/test_own_data.py; }
run_lab() { TEST_MODE=${MODE:-native} "$PYTHON_BIN" -m pytest -v tests/e2e/test_lab.py; }
# All of docs/reliability.md's tests, whatever fails among them; then its figures.
run_faults() {
  local results failed=0 files
  results=$(mktemp -d)
  files=$("$PYTHON_BIN" -m tests.figures files)
  # shellcheck disable=SC2046 # one word for each file
  {
    "$PYTHON_BIN" -m pytest -q -n 2 --junitxml "$results/unit.xml" $(grep 'py$' <<<"$files") || failed=1
    "$VENV/bin/bats" --report-formatter junit --output "$results" $(grep 'bats$' <<<"$files") || failed=1
  }
  FIGURES=docs/reliability.md TEST_MODE=${MODE:-native} "$PYTHON_BIN" -m pytest -v -s --junitxml "$results/e2e.xml" \
    tests/e2e/test_bad_days.py tests/e2e/test_docker.py tests/e2e/test_object_store.py \
    tests/e2e/test_resources.py tests/e2e/test_interruptions.py || failed=1
  TEST_MODE=${MODE:-native} "$PYTHON_BIN" -m tests.figures write "$results"
  rm -r "$results"
  return "$failed"
}

# This checkout's own stack, as it runs.
run_browser() { "$PYTHON_BIN" -m pytest -v tests/browser; }
# The documents' pictures, few colours each so that they stay small.
run_screenshots() {
  local folder
  folder=$(mktemp -d)
  PICTURES=$folder "$PYTHON_BIN" -m pytest -q tests/browser
  "$PYTHON_BIN" - "$folder" docs/pictures <<'PY'
import pathlib, sys

from PIL import Image

taken, kept = map(pathlib.Path, sys.argv[1:])
kept.mkdir(exist_ok=True)
for name in ("mlflow_runs", "zenml_dag"):
    if (taken / f"{name}.png").is_file():
        image = Image.open(taken / f"{name}.png").convert("RGB")
        image.thumbnail((1000, 1000))
        image.quantize(96).save(kept / f"{name}.png", optimize=True)
        print(kept / f"{name}.png", (kept / f"{name}.png").stat().st_size // 1000, "KB")
PY
  rm -r "$folder"
}

run_docker() {
  . "$ROOT/scripts/lib/services.sh"
  with_backend docker backend_check || die "the Docker tests need an engine and Compose v2"
  TEST_MODE=docker "$PYTHON_BIN" -m pytest -v -n 2 --dist loadfile --durations 20 -m "not faults" \
    tests/e2e/test_main_job.py tests/e2e/test_docker.py tests/e2e/test_object_store.py tests/e2e/test_refusals.py
}

main() {
  local suite
  "$ROOT/scripts/ensure-setup.sh" dev
  [ -z "${ONLY:-}" ] || IFS=' ,' read -r -a suites <<<"$ONLY"
  [ -n "${ONLY:-}" ] || suites=("$@")
  for suite in "${suites[@]}"; do
    case $suite in
      unit | shell | e2e | docker | faults | lab | own_data | serve | statistics | browser | screenshots)
        title "== $suite tests"
        "run_$suite"
        ;;
      *) die "$suite: choose unit, shell, e2e, docker, faults, lab, own_data, serve or statistics" ;;
    esac
  done
}

main "$@"
