#!/usr/bin/env bash
# Check this machine, the settings and the services, a line each, with the remedy where one is
# needed. Writes nothing. Exit status 1 when something is wrong.
# Usage: check-health.sh
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/services.sh"
. "$ROOT/scripts/lib/ray.sh"

FAILED=0

good() { printf 'ok    %s\n' "$*"; }
bad() {
  printf 'FAIL  %s\n' "$*"
  FAILED=1
}

check_machine() {
  local free
  good "$(uname -sm), bash ${BASH_VERSION%%(*}, $("$PYTHON_BIN" --version)"
  free=$(df -Pk "$ROOT" | awk 'NR == 2 { print int($4 / 1024) }')
  if [ "$free" -ge 2000 ]; then good "$free MB are free here"; else bad "only $free MB are free here: make room"; fi
}

check_setup() {
  if cmp -s requirements.txt "$VENV/.installed-requirements.txt"; then
    good "the virtual environment holds requirements.txt"
  else
    bad "the virtual environment is not that of requirements.txt: make setup"
  fi
  if [ -z "$(find .env -perm -077)" ]; then good ".env is private"; else bad ".env can be read by others: chmod 600 .env"; fi
}

check_exposure() {
  if [ "$LOOPBACK" = true ]; then
    good "the services listen on $BIND_ADDRESS: this machine only"
  else
    good "the services listen on $BIND_ADDRESS: ZenML ($ZENML_PORT) and MLflow ($MLFLOW_PORT) ask for a password, the store ($MINIO_PORT) for keys; nothing is encrypted, so keep to a network you trust"
  fi
  if ray_running; then good "a Ray node listens on every address: it asks for RAY_SECRET_KEY"; fi
}

check_services() {
  local service fault taken
  if [ ! -f "$STATE/backend" ]; then
    good "the services don't run (make up starts them on the $BACKEND backend: $BACKEND_REASON)"
    if backend_check; then good "the $BACKEND backend can run here"; else FAILED=1; fi
    # shellcheck disable=SC2086 # their names, one word each
    if taken=$("$PYTHON_BIN" -m src.services.processes ports $PORTS); then
      good "the ports are free ($PORTS)"
    else
      while IFS= read -r fault; do bad "$fault"; done <<<"$taken"
    fi
    return
  fi
  # shellcheck disable=SC2046 # one word for each service that runs
  while IFS=$'\t' read -r service fault; do
    if [ "$fault" = healthy ]; then good "$service answers ($BACKEND)"; else bad "$service: $fault: make up, then make logs SERVICE=$service"; fi
  done < <("$PYTHON_BIN" -m src.services.health $(service_states | cut -f1))
  if [ -f "$BACKEND_STATE/stack-fingerprint" ]; then good "the ZenML stack is registered"; else bad "the ZenML stack is not registered: make stack"; fi
}

main() {
  require_setup
  check_machine
  check_setup
  load_settings # names every fault of .env and exits
  good ".env has every setting"
  choose_backend
  check_exposure
  check_services
  exit "$FAILED"
}

main "$@"
