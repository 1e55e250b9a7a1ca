# env.sh: where this checkout is, its Python, and its settings.
# Sets ROOT, STATE, VENV and PYTHON_BIN; load_settings sets every setting of .env.example.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
STATE=$ROOT/.stack
VENV=${VENV:-$ROOT/.venv}
PYTHON_BIN=$VENV/bin/python
export PYTHONUNBUFFERED=1
cd "$ROOT" || return 1

# shellcheck source=scripts/lib/log.sh
. "$ROOT/scripts/lib/log.sh"

require_setup() {
  [ -x "$PYTHON_BIN" ] && [ -f "$ROOT/.env" ] || die "this checkout is not set up: run make setup"
}

# Read the settings through src/settings.py into shell variables; every fault is a line of its own.
load_settings() {
  require_setup
  local lines key value
  lines=$("$PYTHON_BIN" -m src.settings) || exit 1
  while IFS='=' read -r key value; do
    printf -v "$key" '%s' "$value"
  done <<<"$lines"
}

# Create a folder that nobody else may enter.
ensure_private_folder() {
  [ -d "$1" ] || (umask 077 && mkdir -p "$1")
}

# One script at a time may change the services of this checkout. The lock is released when the
# script ends; one whose owner is gone is taken over.
take_lock() {
  local lock=$STATE/lock owner deadline=$((SECONDS + 300)) told=''
  ensure_private_folder "$STATE"
  until (set -o noclobber && echo $$ >"$lock") 2>/dev/null; do
    owner=$(cat "$lock" 2>/dev/null) || continue # released between the two lines
    if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
      rm -f "$lock"
      continue
    fi
    [ -n "$told" ] || say "waiting for pid $owner, which is changing this checkout's services"
    told=yes
    [ "$SECONDS" -lt "$deadline" ] || die "pid $owner still holds $lock"
    sleep 0.2
  done
  trap 'rm -f "$STATE/lock"' EXIT
}
