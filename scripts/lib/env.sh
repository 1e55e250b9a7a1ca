# env.sh: where this checkout is, its Python, and its settings.
# Sets ROOT, STATE, VENV, PYTHON_BIN and COMPOSE_PROJECT; load_settings sets every setting.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
STATE=$ROOT/.stack
VENV=${VENV:-$ROOT/.venv}
PYTHON_BIN=$VENV/bin/python
export PYTHONUNBUFFERED=1
umask 077 # what is made here is nobody else's
cd "$ROOT" || return 1
# Docker's name for this checkout, made of its path: two checkouts never share volumes.
COMPOSE_PROJECT=zenml-cv-yolo-$(pwd -P | cksum | cut -d' ' -f1)

# shellcheck source=scripts/lib/log.sh
. "$ROOT/scripts/lib/log.sh"

require_setup() {
  [ -x "$PYTHON_BIN" ] && [ -f "$ROOT/.env" ] || die "this checkout is not set up: run make setup"
}

# Read the settings and the table of services (see services.sh) into shell variables; every fault is
# a line of its own.
load_settings() {
  require_setup
  local lines key value
  lines=$("$PYTHON_BIN" -m src.services) || exit 1
  while IFS='=' read -r key value; do
    printf -v "$key" '%s' "$value"
  done <<<"$lines"
}

# Create a folder that nobody else may enter.
ensure_private_folder() {
  [ -d "$1" ] || mkdir -p "$1"
}

# One script at a time may change the services of this checkout. The lock is the system's own, on a
# file that is always there; it is held until this script ends, however it ends. Scripts that start
# a daemon close descriptor 9 for it.
take_lock() {
  exec 9<"$ROOT/scripts/lib/env.sh"
  "$PYTHON_BIN" -c '
import fcntl, signal, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("waiting for another make that is changing the services", file=sys.stderr, flush=True)
    signal.alarm(600)
    fcntl.flock(9, fcntl.LOCK_EX)
' || die "another make is still changing this checkout's services: let it end, or end it"
}
