# env.sh: where this checkout is, its Python, and its settings.
# Sets ROOT, STATE, VENV, PYTHON_BIN and COMPOSE_PROJECT; load_settings sets every setting.

# What would lead Python, Git and cd elsewhere.
unset PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONOPTIMIZE PYTHONINSPECT PYTHONWARNINGS CDPATH \
  GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
# Without links, as Python sees it: who comes by another path finds the same services.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
STATE=$ROOT/.stack
VENV=${VENV:-$ROOT/.venv}
PYTHON_BIN=$VENV/bin/python
export PYTHONUNBUFFERED=1
OPEN_FILES=1024 # at once: what supervisor asks for
umask 077       # what is made here is nobody else's
cd "$ROOT" || return 1
# Docker's name for this checkout, made of its path: two checkouts never share volumes.
COMPOSE_PROJECT=zenml-cv-yolo-$(pwd | cksum | cut -d' ' -f1)

# shellcheck source=scripts/lib/log.sh
. "$ROOT/scripts/lib/log.sh"
# A subshell's failure is its caller's to report, and that of `bash -c` has no place to name.
trap '_s=$? _c=$BASH_COMMAND; [ "$BASH_SUBSHELL" != 0 ] || [ -z "${BASH_SOURCE:-}" ] || report_failure "${BASH_SOURCE#"$ROOT"/}" "$LINENO" "$_c" "$_s"' ERR

# These say yes with 1 and no with 0; what reads them asks whether they are set.
for _switch in FORCE FOLLOW FIX DEBUG; do
  case ${!_switch:-} in
    '' | 0 | no | false) unset "$_switch" ;;
    1 | yes | true) export "$_switch=1" ;;
    *) die "$_switch=${!_switch}: 1 for yes, 0 for no; if it was exported for something else: unset $_switch" ;;
  esac
done

# What a Mac allows at first is too little for servers, and for trainings beside each other.
too_few_files() {
  local allowed
  allowed=$(ulimit -Sn)
  [ "$allowed" != unlimited ] && [ "$allowed" -lt "$OPEN_FILES" ]
}
if too_few_files; then ulimit -Sn "$OPEN_FILES" 2>/dev/null || ulimit -Sn "$(ulimit -Hn)"; fi

# Print why too few files may be open at once, with the remedy; nothing when enough may.
descriptor_faults() {
  ! too_few_files || echo "$(ulimit -Sn) files may be open at once, and $OPEN_FILES are needed: ulimit -n $OPEN_FILES; where that is refused, in a new terminal"
}

# A socket's path is limited in bytes, not in characters.
length_in_bytes() { printf '%s' "$1" | wc -c | tr -d ' '; }

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

# Hold a resource of src/locks.py until this script ends, however it ends:
#   take_lock RESOURCE "make down" [--shared] [--now]
# Daemons are started without_locks.
take_lock() { try_lock "$@" || exit 1; }

HELD=''
holds() { case $HELD in *"<$1>"*) ;; *) return 1 ;; esac }

try_lock() {
  local python=$PYTHON_BIN descriptor
  if holds "$1"; then return; fi # opened again, it would be free for a moment
  [ -x "$python" ] || python=$(find_python)
  # The folders are those of src/locks.py; an old bash can't choose a descriptor by itself.
  case $1 in
    services) descriptor=9 && exec 9<"$ROOT/scripts/backends" ;;
    stack) descriptor=8 && exec 8<"$ROOT/compose" ;;
    data) descriptor=7 && exec 7<"$ROOT/data" ;;
    environment) descriptor=6 && exec 6<"$ROOT/scripts/lib" ;;
  esac
  "$python" "$ROOT/src/locks.py" "$descriptor" "$@" || return
  HELD="$HELD<$1>"
}

without_locks() { "$@" 6<&- 7<&- 8<&- 9<&-; }
