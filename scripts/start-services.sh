#!/usr/bin/env bash
# Start the services, wait until they are healthy, print their addresses. A second run changes
# nothing but what .env changed.
# Usage: start-services.sh
# Variables: MODE, and every setting of .env.example
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/backend.sh"
. "$ROOT/scripts/lib/wait.sh"

# What the servers are given at their very first start: to change a password later takes the old one.
remember_sign_ins() {
  local name file=$BACKEND_STATE/applied.env
  [ ! -f "$file" ] || return 0
  for name in ZENML_ADMIN_USERNAME ZENML_ADMIN_PASSWORD MLFLOW_ADMIN_USERNAME MLFLOW_ADMIN_PASSWORD; do
    printf '%s=%s\n' "$name" "${!name}"
  done >"$file"
}

forget_backend_unless_running() {
  local status=$?
  [ "$status" = 0 ] || backend_states | grep -qv "$(printf '\tstopped\t')" || rm -f "$STATE/backend"
}

main() {
  umask 077
  load_settings
  take_lock
  choose_backend
  backend_check || exit 1
  [ -f "$STATE/backend" ] || say "backend: $BACKEND ($BACKEND_REASON)"
  # A first start that fails binds nobody to this backend.
  [ -f "$STATE/backend" ] || trap forget_backend_unless_running EXIT
  ensure_private_folder "$BACKEND_STATE"
  remember_sign_ins
  echo "$BACKEND" >"$STATE/backend"
  backend_up
  wait_until_healthy
  printf '%-14s%s\n' ZenML "$ZENML_URL" MLflow "$MLFLOW_URL" 'Object store' "$STORE_URL"
}

main "$@"
