#!/usr/bin/env bash
# Start or stop the service that answers with the champion's detections.
# Usage: serve-champion.sh start|stop
# Variables: SERVE_PORT, SERVE_MODEL and every other setting of .env.example
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/services.sh"
. "$ROOT/scripts/lib/secrets.sh"
. "$ROOT/scripts/lib/wait.sh"

SERVICE=detector

state() { backend_states | told_of "$SERVICE"; }

# Print the registered model to serve.
wanted_model() {
  if [ "$CONFIGURED" != auto ]; then
    printf '%s' "$CONFIGURED"
  else
    "$PYTHON_BIN" -c 'from src.datasets.sets import choose; print(choose().model)'
  fi
}

# Native settings are files, and supervisor restarts what they concern.
settle_model() {
  [ "$CONFIGURED" != auto ] || printf '%s\n' "$1" | ensure_file "$STATE/serve-model" 600
  [ "$1" != "$SERVE_MODEL" ] || return 0
  SERVE_MODEL=$1
  backend_up
}

# What takes a moment, while the services are looked at.
begin() {
  exec 3< <("$PYTHON_BIN" -m src.services.processes ports SERVE_PORT) 4< <(wanted_model)
}

start() {
  local model taken
  taken=$(cat <&3) model=$(cat <&4)
  exec 3<&- 4<&-
  [ -n "$model" ] || exit 1 # it has said why
  if [ "$(state)" = stopped ]; then
    [ -z "$taken" ] || die "$taken"
    say "starting the detector"
  fi
  settle_model "$model"
  backend_start "$SERVICE"
  wait_until_serving
  printf '%-14s%s\n' "$(about LABEL "$SERVICE")" "$(about URL "$SERVICE")"
}

# It answers 503 as soon as it has looked for the champion and found none that it can use.
wait_until_serving() {
  local deadline=$((SECONDS + START_TIMEOUT)) health
  until health=$("$PYTHON_BIN" -m src.services.health --within 2 "$SERVICE"); do
    if report_failures; then exit 1; fi
    case $health in
      *'HTTP 503')
        backend_logs 1 "$SERVICE" >&2
        backend_stop "$SERVICE"
        die "there is no champion that can be served (see above): it was stopped again"
        ;;
    esac
    [ "$SECONDS" -lt "$deadline" ] || die "the detector: ${health#*$'\t'} after $START_TIMEOUT s (START_TIMEOUT): see make logs SERVICE=$SERVICE"
  done
}

stop() {
  if [ "$(state)" = stopped ]; then
    say "the detector does not run"
  else
    backend_stop "$SERVICE"
    say "the detector: stopped"
  fi
}

main() {
  load_settings
  CONFIGURED=$SERVE_MODEL
  if [ "$1" = start ]; then
    begin
    ensure_services
  elif [ ! -f "$STATE/backend" ]; then
    die "the services don't run: make up"
  fi
  take_lock services "make serve"
  choose_backend
  "$1"
}

# As `make up` does; unchanged ones are looked at with the settings that are loaded already.
ensure_services() {
  if [ -f "$STATE/backend" ]; then
    choose_backend
    if services_settled; then return; fi
  fi
  "$ROOT/scripts/start-services.sh"
}

main "$@"
