#!/usr/bin/env bash
# Lint Python (ruff, mypy) and shell (shellcheck, shfmt). All tools come from requirements-dev.txt.
# Usage: run-linters.sh
# Variables: FIX=1 (let ruff and shfmt mend what they can)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

main() {
  local failed=0 shell_files=() file format=--check shfmt=-d
  "$ROOT/scripts/ensure-setup.sh" dev
  while IFS= read -r file; do shell_files+=("$file"); done < <(
    git ls-files --cached --others --exclude-standard -- '*.sh' '*.bash' '*.bats' .ci/run
  )
  if [ -n "${FIX:-}" ]; then format=--quiet shfmt=-w; fi
  "$VENV/bin/ruff" format "$format" --quiet . || failed=1
  "$VENV/bin/ruff" check ${FIX:+--fix} --quiet . || failed=1
  "$PYTHON_BIN" -m mypy || failed=1
  "$VENV/bin/shellcheck" "${shell_files[@]}" || failed=1
  "$VENV/bin/shfmt" -i 2 -ci "$shfmt" "${shell_files[@]}" || failed=1
  [ "$failed" = 0 ] || die "lint: see above (make lint FIX=1 mends what it can)"
  say "lint: clean"
}

main "$@"
