# helper.bash: what the shell tests share. Each test works in a copy of the checkout under a path
# with spaces, beside whatever runs in the real one; nothing outside $BATS_TEST_TMPDIR is touched.

bats_require_minimum_version 1.5.0

REPO=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
REAL_PYTHON=${VENV:-$REPO/.venv}/bin/python
STUBS=$BATS_TEST_TMPDIR/stubs # first on PATH
CALLS=$BATS_TEST_TMPDIR/calls # what stubs record

# Make the copy, $1 its path under the test's folder, and go there.
make_checkout() {
  local name
  forget_environment
  CHECKOUT=$BATS_TEST_TMPDIR/${1:-a checkout}
  mkdir -p "$CHECKOUT" "$STUBS" "$HOME"
  : >"$CALLS"
  cd "$CHECKOUT" || return
  for name in Makefile .env.example .gitignore .dvcignore requirements.txt requirements-dev.txt scripts src compose data reports; do
    [ ! -e "$REPO/$name" ] || cp -R "$REPO/$name" .
  done
  git init -q .
}

# What the developer, make or a Git hook has exported must not change a test.
forget_environment() {
  local name
  while IFS= read -r name; do unset "$name"; done < <(grep -oE '^[A-Z][A-Z0-9_]+' "$REPO/.env.example")
  unset VENV PYTHON FORCE SERVICE LINES FOLLOW EPOCHS IMGSZ BATCH SEED
  unset MAKEFLAGS MFLAGS MAKELEVEL GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
  export HOME=$BATS_TEST_TMPDIR/home TMPDIR=$BATS_TEST_TMPDIR PATH=$STUBS:$PATH
}

# What `make setup` would make, in no time: .venv is the real one's Python, .env has fixed secrets.
set_up() {
  mkdir -p .venv/bin
  write_script .venv/bin/python <<<"exec $(printf %q "$REAL_PYTHON") \"\$@\""
  awk '/^[A-Z0-9_]+=$/ { printf "%s%032x\n", $0, NR; next } { print }' .env.example >.env
  chmod 600 .env
}

# In place of a backend, functions that record their calls; in place of the health checks, $1.
stub_backend() {
  cat >scripts/backends/native.sh <<SH
backend_faults() { :; }
backend_up() { echo up >>'$CALLS'; }
backend_settled() { return 1; }
backend_findings() { printf "%s" "\${FINDINGS:-}"; }
backend_down() { echo down >>'$CALLS'; }
backend_destroy() { echo destroy >>'$CALLS'; }
backend_states() { printf '%s\t%s\tits detail\n' mlflow running zenml "\${ZENML_STATE:-running}"; }
backend_logs() { echo "the last \$1 lines of \${2:-all}\${FOLLOW:+, for ever}"; }
SH
  printf '%s\n' "${1:-raise SystemExit(0)}" >src/services/health.py
  export MODE=native
}

# Write stdin to an executable script $1.
write_script() {
  { echo '#!/usr/bin/env bash' && cat; } >"$1"
  chmod +x "$1"
}

# Run shell code as a script of scripts/ would; all but the last argument name libraries of lib/.
with_libraries() { bash -c "$(library_script "$@")"; }

library_script() {
  echo 'set -Eeuo pipefail'
  while [ $# -gt 1 ]; do
    echo ". scripts/lib/$1.sh"
    shift
  done
  echo "$1"
}

# Poll a command until it succeeds, $1 seconds at most.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.05
  done
}

ended() { ! kill -0 "$1" 2>/dev/null; }

# The output of `run` must hold each of the texts.
said() {
  local text
  for text; do
    [[ $output == *"$text"* ]] || fail "not said: $text" "but: $output"
  done
}

not_said() {
  local text
  for text; do [[ $output != *"$text"* ]] || fail "said: $text" "in: $output"; done
}

called() { [ "$(cat "$CALLS")" = "$1" ] || fail "expected calls: $1" "but: $(cat "$CALLS")"; }

is_private() { [ -n "$(find "$1" -prune -perm 600)" ] || fail "$(ls -l "$1") is not of mode 600"; }

# Every file below the current folder, with its content's checksum.
contents() { find . -type f -exec cksum {} + | sort -k 3; }

fail() {
  printf '%s\n' "$@" >&2
  return 1
}
