#!/usr/bin/env bash
# Check this machine, the settings and the services, a line each, with the remedy where one is
# needed. Writes nothing. Exit status 1 when something is wrong.
# Usage: check-health.sh
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/services.sh"
. "$ROOT/scripts/lib/secrets.sh"
. "$ROOT/scripts/lib/ray.sh"
. "$ROOT/scripts/lib/tools.sh"

FAILED=0

good() { printf 'ok    %s\n' "$*"; }
bad() {
  printf 'FAIL  %s\n' "$*"
  FAILED=1
}

# Each line of $1 is something wrong.
all_bad() {
  local fault
  while IFS= read -r fault; do [ -z "$fault" ] || bad "$fault"; done <<<"$1"
}

check_machine() {
  local what free
  all_bad "$(tool_faults)"
  good "$(uname -sm), bash ${BASH_VERSION%%(*}, $("$PYTHON_BIN" --version)"
  while IFS=$'\t' read -r what free; do
    if [ -z "$free" ]; then
      good "$what"
    elif [ "$free" -ge 2000 ]; then
      good "$free MB are free in $what"
    else bad "only $free MB are free in $what: make room"; fi
  done < <("$PYTHON_BIN" -c 'from src.machine import cores, free_disk, free_memory
for folder, free in free_disk().items(): print(folder, free // 10**6, sep="\t")
print(f"{cores()} cores and {free_memory() // 10**6} MB of memory are left to this")')
}

check_setup() {
  local open file
  if cmp -s requirements.txt "$VENV/.installed-requirements.txt"; then
    good "the virtual environment holds requirements.txt"
  else
    bad "the virtual environment is not that of requirements.txt: make setup"
  fi
  if [ -s "$VENV/.installed-torch" ]; then good "PyTorch is installed"; else bad "PyTorch was not installed to its end: make setup"; fi
  open=$(for file in .env .stack; do # make clean takes .stack away
    [ ! -e "$file" ] || find "$file" -prune \( -perm -040 -o -perm -020 -o -perm -004 -o -perm -002 \)
  done | tr '\n' ' ')
  if [ -z "$open" ]; then good ".env and .stack are private"; else bad "others may read or write ${open% }: chmod go= ${open% }"; fi
}

# What was exported for something else, or long ago, wins over .env.
check_environment() {
  local name names=''
  while IFS= read -r name; do
    [ -z "${!name:-}" ] || names="$names $name"
  done < <(sed -n 's/^\([A-Z][A-Z0-9_]*\)=.*/\1/p' .env.example)
  [ -z "$names" ] || good "from the environment, over .env:$names (unset what is not meant)"
}

# The checkpoint that WEIGHTS names, and the copies of those that trainings started from: each is named by
# its SHA-256.
check_weights() {
  case $WEIGHTS in
    auto | scratch | *://*) ;;
    *) if [ -f "$WEIGHTS" ]; then good "WEIGHTS is there"; else bad "WEIGHTS=$WEIGHTS: no such file: set it to a .pt file, a URL, scratch or auto in .env"; fi ;;
  esac
  all_bad "$("$PYTHON_BIN" -c 'from pathlib import Path
from src.files import sha256
for file in sorted(Path(".stack/weights").glob("*.pt")):
    if sha256(file) != file.stem:
        print(f"{file} is torn (the next training that starts from it makes it again): rm {file}")')"
}

check_exposure() {
  if [ "$LOOPBACK" = true ]; then
    good "the services listen on $BIND_ADDRESS: this machine only"
  else
    good "the services listen on $BIND_ADDRESS: ZenML ($ZENML_PORT) and MLflow ($MLFLOW_PORT) ask for a password, the store ($MINIO_PORT) for keys; nothing is encrypted, so keep to a network you trust"
  fi
  if ray_running; then good "a Ray node listens on every address: it asks for RAY_SECRET_KEY"; fi
}

check_stopped() {
  local taken left faults
  good "the services don't run (make up starts them on the $BACKEND backend: $BACKEND_REASON)"
  faults=$(backend_faults)
  all_bad "$faults"
  [ -z "$faults" ] || return 0
  good "the $BACKEND backend can run here"
  left=$(backend_findings)
  all_bad "$left"
  # shellcheck disable=SC2086 # their names, one word each
  if taken=$("$PYTHON_BIN" -m src.services.processes ports $PORTS); then good "the ports are free ($PORTS)"; else all_bad "$taken"; fi
}

# $1 service, $2 its state, $3 since when or why, $4 what its health check says
check_service() {
  local since='' why
  [ "$3" = - ] || [ -z "$3" ] || since=" ($3)"
  case $4,$2 in
    healthy,*) good "$1 answers ($BACKEND)" ;;
    *,failed)
      why=$(refusal "$1")
      bad "$1 gave up$since: ${why:-make logs SERVICE=$1 says why; when that is mended: make up}"
      ;;
    *,stopped) bad "$1 is stopped$since: make up" ;;
    "its clock"*) bad "$1: $4" ;;
    "its files were deleted",*) bad "$1 runs on files that were deleted: make up" ;;
    "not this checkout's",*) bad "$1: another server answers in its place" ;;
    *,starting) bad "$1 is starting and does not answer yet ($4): make up waits for it" ;;
    *) bad "$1 runs$since and does not answer ($4): make up" ;;
  esac
}

check_services() {
  local service state detail fault states health all=yes
  if [ ! -f "$STATE/backend" ]; then
    check_stopped
    return
  fi
  states=$(service_states)
  # shellcheck disable=SC2046 # one word for each service
  health=$("$PYTHON_BIN" -m src.services.health $(cut -f1 <<<"$states")) || all=no
  while IFS=$'\t' read -r service state detail; do
    fault=$(told_of "$service" <<<"$health")
    # MySQL answers its network alone: what its engine says of it counts.
    if [ -z "$fault" ] && [ "$state" = running ]; then fault=healthy; fi
    check_service "$service" "$state" "$detail" "$fault"
  done <<<"$states"
  all_bad "$(backend_findings)"
  if [ "$all" = no ]; then
    say "      (the ZenML stack is looked at when all services answer)"
  elif fault=$("$PYTHON_BIN" -m src.bootstrap --look 2>&1); then
    good "buckets, keys and the ZenML stack are as .env says"
  else
    all_bad "$fault"
  fi
}

main() {
  require_setup
  check_machine
  check_setup
  check_environment
  load_settings # names every fault of .env and exits
  good ".env has every setting"
  check_weights
  choose_backend
  check_exposure
  check_services
  exit "$FAILED"
}

main "$@"
