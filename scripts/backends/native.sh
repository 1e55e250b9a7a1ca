# native.sh: the services as plain processes under supervisor. See lib/services.sh for the contract.

NATIVE_STATE=$STATE/native
NATIVE_CONF=$NATIVE_STATE/supervisord.conf

backend_faults() {
  case $(uname -s) in
    Linux | Darwin) ;;
    *) echo "the native backend runs on Linux and macOS (and in WSL2)" ;;
  esac
  descriptor_faults
}

# A Unix socket's path ends at 107 bytes (103 on macOS), and supervisor adds a pid to it at first.
native_socket_folder() {
  if [ "$(length_in_bytes "$NATIVE_STATE")" -lt 75 ]; then
    printf '%s' "$NATIVE_STATE"
  else
    printf '%s/zcy-%s-%s' "${TMPDIR:-/tmp}" "$(id -u)" "$(printf '%s' "$ROOT" | cksum | cut -d' ' -f1)"
  fi
}

# As written in supervisor's configuration, where % is doubled.
native_socket() {
  local folder
  folder=$(native_socket_folder)
  printf '%s/supervisor.sock' "${folder//%/%%}"
}

# Everything runs in ROOT with relative paths, so that a path with spaces or % needs no quoting. The
# hash makes supervisor start a service again whose settings, launcher or lock have changed; the
# first line tells whether supervisor itself runs from this very virtual environment.
native_config() {
  local service
  cat <<CONF
; $VENV $(cat "$VENV/.created" 2>/dev/null)
[unix_http_server]
file=$(native_socket)
chmod=0600

[supervisord]
logfile=.stack/native/logs/supervisord.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile=.stack/native/supervisord.pid
childlogdir=.stack/native/logs
umask=077

[supervisorctl]
serverurl=unix://$(native_socket)

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
CONF
  for service in $SERVICES; do
    cat <<PROGRAM

[program:$service]
command=python -m src.services.launcher $service
environment=SERVICE_SETTINGS=".stack/native/settings/$service.env",SERVICE_DATA=".stack/native/$service",SERVICE_HASH="$(native_hash "$service")"
autostart=$(if is_optional "$service"; then echo false; else echo true; fi)
stdout_logfile=.stack/native/logs/$service.log
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=3
redirect_stderr=true
autorestart=true
startsecs=2
startretries=3
stopasgroup=true
killasgroup=true
stopwaitsecs=20
PROGRAM
  done
}

# shellcheck disable=SC2046 # one word for each file
native_hash() {
  { service_settings "$1" && cat src/services/launcher.py src/services/migration.py $(about CODE "$1") "$VENV/.installed-requirements.txt"; } |
    git hash-object --stdin
}

# With a limit, since a supervisor that was stopped never answers; a service has 20 s to end.
native_ctl() {
  "$PYTHON_BIN" -c 'import socket, sys
from supervisor.supervisorctl import main
socket.setdefaulttimeout(5 if sys.argv[3] in ("pid", "status") else 60)
main()' -c "$NATIVE_CONF" "$@"
}

# Only this checkout's own: a copy of a checkout brings along the other's configuration.
native_running() { native_is_ours && native_ctl pid >/dev/null 2>&1; }
native_is_ours() { grep -qxF "file=$(native_socket)" "$NATIVE_CONF" 2>/dev/null; }

native_check_ports() {
  local taken
  # shellcheck disable=SC2086 # their names, one word each
  taken=$("$PYTHON_BIN" -m src.services.processes ports $PORTS) || die "$taken"
}

native_start_supervisor() {
  "$PYTHON_BIN" -m src.services.processes end
  native_check_ports
  # A clean environment: programs inherit supervisord's own.
  (umask 077 && without_locks exec env -i PATH="$VENV/bin:/usr/bin:/bin:/usr/sbin:/sbin" HOME="$NATIVE_STATE" \
    TMPDIR="$NATIVE_STATE/tmp" LANG="${LANG:-C.UTF-8}" PYTHONUNBUFFERED=1 ZENML_CV_YOLO_CHECKOUT="$ROOT" \
    ZENML_ANALYTICS_OPT_IN=false MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true \
    AWS_EC2_METADATA_DISABLED=true AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null \
    ZENML_LOGGING_COLORS_DISABLED=true MALLOC_ARENA_MAX=2 "$PYTHON_BIN" -m supervisor.supervisord -c "$NATIVE_CONF")
}

backend_settled() {
  local said service
  native_is_ours && native_config | cmp -s - "$NATIVE_CONF" || return 1
  said=$(native_states)
  for service in $STARTED; do grep -q "^$service  *RUNNING " <<<"$said" || return 1; done
}

backend_up() {
  local folder wanted busy=''
  for folder in logs tmp settings $SERVICES; do
    ensure_private_folder "$NATIVE_STATE/$folder"
  done
  native_ensure_socket_folder
  wanted=$(native_config)
  if ! native_running; then
    native_install "$wanted"
    say "starting the services"
    native_start_supervisor
    return
  fi
  if [ "$wanted" != "$(cat "$NATIVE_CONF")" ]; then
    if try_lock stack "make up" --now; then native_apply "$wanted"; else busy=yes; fi
  fi
  native_mend
  [ -z "$busy" ] || die "what has changed (settings, code or .venv) waits: the services that run were left as they are"
}

native_install() {
  write_service_settings native "$NATIVE_STATE/settings" 600
  ensure_file "$NATIVE_CONF" 600 <<<"$1"
}

native_apply() {
  say "settings, code or .venv have changed: restarting what they concern"
  if [ "$(head -n 1 "$NATIVE_CONF")" != "${1%%$'\n'*}" ]; then
    backend_down
    native_ensure_socket_folder
    native_install "$1"
    native_start_supervisor
  else
    native_check_ports
    native_install "$1"
    native_update
  fi
}

# Start what is stopped or gave up; supervisor counts the failures of a start, so it starts afresh.
# What an earlier start left is ended first: it would answer in place of what starts now.
native_mend() {
  local service state dead=()
  "$PYTHON_BIN" -m src.services.processes end "$(native_ctl pid)"
  while read -r service state _; do
    case $state in
      RUNNING) continue ;;
      STARTING) if native_may_start "$service"; then continue; fi ;;
    esac
    case $state in
      STARTING | BACKOFF) native_ctl stop "$service" >/dev/null ;;
    esac
    is_optional "$service" || dead+=("$service")
  done < <(native_states)
  [ ${#dead[@]} -gt 0 ] || return 0
  say "starting ${dead[*]}"
  [ -n "$busy" ] || write_service_settings native "$NATIVE_STATE/settings" 600 # one may be torn
  native_check_ports
  native_ctl start "${dead[@]}" >/dev/null || : # who waits for their health says why they died
}

# Not one that has read, or is about to read, a torn file of settings.
native_may_start() { is_optional "$1" || service_settings "$1" | cmp -s - "$NATIVE_STATE/settings/$1.env"; }

backend_restart() { native_ctl restart "$1" >/dev/null || :; } # likewise

# What does not start by itself is started again if it ran.
native_update() {
  local service state ran=()
  while read -r service state _; do
    if is_optional "$service" && [ "$state" = RUNNING ]; then ran+=("$service"); fi
  done < <(native_states)
  native_ctl update >&2
  for service in ${ran[@]+"${ran[@]}"}; do backend_start "$service"; done
}

backend_start() {
  local said
  said=$(native_ctl start "$1") && return
  case $said in *'already started'*) return ;; esac
  if report_failures; then exit 1; fi
  die "$1 could not be started ($said): see make logs SERVICE=$1"
}

backend_stop() { native_ctl stop "$1" >/dev/null; }

native_ensure_socket_folder() {
  local folder
  folder=$(native_socket_folder)
  ensure_private_folder "$folder"
  [ -O "$folder" ] || die "$folder belongs to somebody else: set TMPDIR to a folder of your own"
}

backend_states() {
  local service state detail
  while read -r service state detail; do
    case $state in
      RUNNING) state=running ;;
      STARTING | BACKOFF) state=starting ;;
      FATAL | EXITED | UNKNOWN) state=failed detail="$detail; its log ends at $(native_last_word "$service")" ;;
      *) state=stopped ;;
    esac
    printf '%s\t%s\t%s\n' "$service" "$state" "$detail"
  done < <(native_states)
}

# When a service last said something: supervisor does not tell when it gave up.
native_last_word() {
  "$PYTHON_BIN" -c 'import os, sys, time
print(time.strftime("%Y-%m-%d %H:%M", time.localtime(os.path.getmtime(sys.argv[1]))))' "$NATIVE_STATE/logs/$1.log"
}

backend_findings() {
  local supervisor='' left
  if native_running; then
    supervisor=$(native_ctl pid)
    native_config | cmp -s - "$NATIVE_CONF" ||
      echo "the services run with earlier settings, code or packages: make up"
  fi
  # shellcheck disable=SC2086 # one word, or none
  left=$("$PYTHON_BIN" -m src.services.processes list $supervisor)
  if [ -n "$left" ] && [ -n "$supervisor" ]; then
    echo "processes of an earlier start live beside the services ($left): make down, then make up"
  elif [ -n "$left" ]; then
    echo "supervisor is dead or halted and its services live on ($left): nothing would start them again: make up"
  elif [ -z "$supervisor" ] && [ -f "$STATE/backend" ]; then
    echo "supervisor does not run (the machine was restarted, or it was killed): make up"
  fi
  # shellcheck disable=SC2086 # their names, one word each
  [ ! -f "$STATE/backend" ] || "$PYTHON_BIN" -m src.services.processes ports $PORTS || :
}

# "service STATE detail" of each service, as supervisorctl says it, in our order.
native_states() {
  local service said=''
  # 3: some don't run; 4: supervisor does not answer
  if native_is_ours; then said=$(native_ctl status 2>/dev/null) || [ $? = 3 ] || said=''; fi
  for service in $SERVICES; do
    grep "^$service " <<<"$said" || echo "$service STOPPED -"
  done
}

backend_logs() {
  local lines=$1 service files=()
  for service in ${2:-$SERVICES}; do files+=("$NATIVE_STATE/logs/$service.log"); done
  if [ -n "${FOLLOW:-}" ]; then
    exec tail -n "$lines" -F "${files[@]}"
  else
    tail -n "$lines" "${files[@]}"
  fi
}

backend_launch() {
  local service=$1
  shift
  SERVICE_SETTINGS=.stack/native/settings/$service.env SERVICE_DATA=.stack/native/$service \
    "$PYTHON_BIN" -m src.services.launcher "$@"
}

backend_down() {
  local pid
  if native_running; then
    pid=$(native_ctl pid)
    native_ctl shutdown >/dev/null
    "$PYTHON_BIN" -m src.services.processes wait "$pid" || die "supervisord (pid $pid) does not end: see make logs"
  fi
  "$PYTHON_BIN" -m src.services.processes end
  [ "$(native_socket_folder)" = "$NATIVE_STATE" ] || rm -rf "$(native_socket_folder)"
}

backend_destroy() {
  backend_down
  rm -rf "$NATIVE_STATE"
}
