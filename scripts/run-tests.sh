#!/usr/bin/env bash
# Run the tests: unit (no servers), shell (bats), e2e (the whole stack, on its own ports and in its
# own folder, beside whatever runs here), browser (the servers' pages in Chromium).
# Usage: run-tests.sh
# Variables: ONLY=unit|shell|e2e|browser, TEST_MODE=native|docker (the backend of e2e)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

run_unit() { "$PYTHON_BIN" -m pytest -q tests/unit; }
run_shell() { "$VENV/bin/bats" tests/shell; }
run_e2e() { "$PYTHON_BIN" -m pytest -v tests/e2e; }

main() {
  local suite suites=${ONLY:-unit shell e2e}
  "$ROOT/scripts/ensure-setup.sh" dev
  for suite in $suites; do
    case $suite in
      unit | shell | e2e)
        title "== $suite tests"
        "run_$suite"
        ;;
      *) die "ONLY=$suite: choose unit, shell or e2e" ;;
    esac
  done
}

main "$@"
