# The native backend: what supervisor is given.
# shellcheck disable=SC2016 # variables of the scripts under test

setup() {
  load helper
  make_checkout
  set_up
  export MODE=native
}

teardown() {
  [ -z "${LISTENER:-}" ] || kill "$LISTENER"
}

native() { with_libraries env secrets services wait "load_settings; choose_backend; $1"; }

secrets() { sed -nE 's/^[A-Z0-9_]*(PASSWORD|SECRET_KEY|ENCRYPTION_KEY)=(.+)/\2/p' .env; }

# Let supervisor read a rendered configuration; print a program's command or environment by name.
as_supervisor_reads() {
  mkdir -p .stack/native/logs
  "$REAL_PYTHON" - "$@" <<'PYTHON'
import sys

from supervisor.options import ServerOptions

options = ServerOptions()
options.realize(["-n", "-c", sys.argv[1]])
for group in options.process_group_configs:
    for program in group.process_configs:
        if program.name == sys.argv[2]:
            print(program.environment[sys.argv[3]] if sys.argv[3:] else program.command)
PYTHON
}

# The services' files and supervisor's configuration, as `make up` writes them.
configured() {
  native 'ensure_private_folder "$NATIVE_STATE/settings"
    write_service_settings native "$NATIVE_STATE/settings" 600
    native_config' >conf
}

@test "no secret stands in supervisor's configuration" {
  configured
  [ "$(grep -c ^command= conf)" = 4 ]
  while IFS= read -r secret; do
    ! grep -F "$secret" conf || fail "a secret is in supervisor's configuration"
  done < <(secrets)
}

@test "each server is given its own secrets and no other's, privately" {
  configured
  root=$(sed -n 's/^MINIO_ROOT_PASSWORD=//p' .env)
  mlflow=$(sed -n 's/^MLFLOW_S3_SECRET_KEY=//p' .env)
  [ "$(grep -rlF "$root" .stack/native)" = .stack/native/settings/object-store.env ]
  [ "$(grep -rlF "$mlflow" .stack/native)" = .stack/native/settings/mlflow.env ]
  for service in object-store mlflow zenml; do
    file=$(as_supervisor_reads conf "$service" SERVICE_SETTINGS)
    [ "$file" = ".stack/native/settings/$service.env" ]
    is_private "$file"
  done
}

@test "what a server listens on is in its settings" {
  BIND_ADDRESS=192.168.1.20 ZENML_PORT=8181 configured
  grep -qx BIND_ADDRESS=192.168.1.20 .stack/native/settings/zenml.env
  grep -qx ZENML_PORT=8181 .stack/native/settings/zenml.env
  grep -qx BIND_ADDRESS=192.168.1.20 .stack/native/settings/object-store.env
}

@test "supervisor starts a server again when its settings, the launcher or its own code have changed, and no other" {
  configured
  zenml=$(as_supervisor_reads conf zenml SERVICE_HASH)
  mlflow=$(as_supervisor_reads conf mlflow SERVICE_HASH)
  ZENML_PORT=8181 configured
  [ "$(as_supervisor_reads conf zenml SERVICE_HASH)" != "$zenml" ]
  [ "$(as_supervisor_reads conf mlflow SERVICE_HASH)" = "$mlflow" ]
  echo '# changed' >>src/services/launcher.py
  configured
  [ "$(as_supervisor_reads conf mlflow SERVICE_HASH)" != "$mlflow" ]
  mlflow=$(as_supervisor_reads conf mlflow SERVICE_HASH) detector=$(as_supervisor_reads conf detector SERVICE_HASH)
  echo '# changed' >>src/champion/server.py
  configured
  [ "$(as_supervisor_reads conf detector SERVICE_HASH)" != "$detector" ]
  [ "$(as_supervisor_reads conf mlflow SERVICE_HASH)" = "$mlflow" ]
}

@test "supervisor is told to leave alone what starts only when asked for" {
  configured
  [ "$(sed -n '/^\[program:detector\]/,/^$/p' conf | grep ^autostart=)" = autostart=false ]
  [ "$(sed -n '/^\[program:mlflow\]/,/^$/p' conf | grep ^autostart=)" = autostart=true ]
}

@test "supervisor understands a path with spaces and percent signs" {
  make_checkout 'a 100% checkout'
  set_up
  configured
  [ "$(as_supervisor_reads conf zenml SERVICE_DATA)" = .stack/native/zenml ]
  grep -qxF "file=${CHECKOUT//%/%%}/.stack/native/supervisor.sock" conf || grep -q '^file=.*/zcy-' conf
}

@test "the socket's path stays short in a deep checkout, and is that checkout's own" {
  deep=$(printf '/a folder of some depth %s' 1 2 3 4 5)
  make_checkout "$deep"
  set_up
  first=$(TMPDIR=/tmp native native_socket_folder)
  [ $((${#first} + ${#deep})) -gt 100 ]
  [ ${#first} -lt 75 ]
  make_checkout "$deep 6"
  set_up
  [ "$(TMPDIR=/tmp native native_socket_folder)" != "$first" ]
}

@test "the socket's path is counted in bytes, not in characters" {
  for name in $(printf 'ж%.0s' {1..40}) $(printf '猫%.0s' {1..30}); do
    make_checkout "$name"
    set_up
    run -0 native 'mkdir -p "$NATIVE_STATE"; native_ensure_socket_folder; printf "%s.12345" "$(native_socket)"'
    [ "$(printf '%s' "$output" | wc -c)" -lt 103 ] || fail "too long: $output"
  done
}

@test "a file is installed privately, and only when it changes" {
  run -0 native 'echo one | install_file "a file" 600'
  is_private 'a file'
  run -1 native 'echo one | install_file "a file" 600'
  run -0 native 'echo two | install_file "a file" 600'
  [ "$(cat 'a file')" = two ]
  [ ! -e '.a file.new' ]
}

@test "a file that can't be written is an error, not one that has not changed" {
  run -2 native 'echo one | install_file "no folder/a file" 600'
  run -2 native 'echo one | ensure_file "no folder/a file" 600'
  said 'a file could not be written'
}

@test "services that do not run are stopped" {
  run -0 native backend_states
  [ "$output" = $'object-store\tstopped\t-\nmlflow\tstopped\t-\nzenml\tstopped\t-\ndetector\tstopped\t-' ]
}

@test "a halted supervisor is not waited for when its services' states are asked for" {
  configured
  native 'native_ensure_socket_folder; cat conf >"$NATIVE_CONF"; native_socket' >path
  "$REAL_PYTHON" -c 'import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print("here", flush=True); time.sleep(120)' "$(cat path)" >here 3>&- &
  LISTENER=$!
  within 5 test -s here
  SECONDS=0
  run -0 native 'native_is_ours && native_states'
  said "mlflow STOPPED -"
  [ "$SECONDS" -ge 4 ]
  [ "$SECONDS" -lt 30 ]
}

@test "a listener on [::1], which clients of localhost try first, is in the way" {
  "$REAL_PYTHON" -c 'import socket, time
s = socket.create_server(("::1", 0), family=socket.AF_INET6); print(s.getsockname()[1], flush=True); time.sleep(60)' >port 2>none 3>&- &
  LISTENER=$!
  within 5 test -s port -o -s none
  [ -s port ] || skip "no IPv6 here"
  MLFLOW_PORT=$(cat port) run -1 .venv/bin/python -m src.services.processes ports MLFLOW_PORT
  said "MLFLOW_PORT $(cat port) is taken by pid $LISTENER" 'set MLFLOW_PORT in .env'
  BIND_ADDRESS=127.0.0.2 MLFLOW_PORT=$(cat port) run -0 .venv/bin/python -m src.services.processes ports MLFLOW_PORT
}

@test "a listener on [::1] is in the way of our own server on 127.0.0.1, too" {
  ZENML_CV_YOLO_CHECKOUT=$CHECKOUT "$REAL_PYTHON" -c 'import socket, sys, time
own = socket.create_server(("127.0.0.1", 0)); print(own.getsockname()[1], flush=True); time.sleep(60)' >port 3>&- &
  own=$!
  within 5 test -s port
  MLFLOW_PORT=$(cat port) run -0 .venv/bin/python -m src.services.processes ports MLFLOW_PORT
  "$REAL_PYTHON" -c 'import socket, sys, time
s = socket.create_server(("::1", int(sys.argv[1])), family=socket.AF_INET6); print("here", flush=True); time.sleep(60)' "$(cat port)" >here 2>none 3>&- &
  LISTENER=$!
  within 5 test -s here -o -s none
  MLFLOW_PORT=$(cat port) run .venv/bin/python -m src.services.processes ports MLFLOW_PORT
  kill "$own"
  [ -s here ] || skip "no IPv6 here"
  said "is taken by pid $LISTENER"
}

@test "a taken port is named with its holder and the remedy, and nothing starts" {
  "$REAL_PYTHON" -c 'import socket, time
s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1], flush=True); time.sleep(60)' >port 3>&- &
  LISTENER=$!
  within 5 test -s port
  ZENML_PORT=$(cat port) run -1 scripts/start-services.sh
  said "ZENML_PORT $(cat port) is taken by pid $LISTENER" 'set ZENML_PORT in .env'
  [ ! -e .stack/native/supervisord.pid ]
  [ ! -e .stack/native/object-store/meta.db ]
}

# Supervisor says $1 of its services and knows no process; what it is told to do is recorded.
mend() {
  native 'busy=
    native_ctl() { [ "$*" != pid ] || { echo $$ && return; }; echo "$*" >>"'"$CALLS"'"; }
    native_states() { printf "'"$1"'"; }
    native_check_ports() { :; }
    native_mend'
}

@test "a service between two tries is started afresh where its settings are torn, else left to start" {
  configured
  : >"$CALLS"
  run -0 mend 'mlflow RUNNING\nzenml STARTING\ndetector STOPPED\n'
  called ''
  cp .stack/native/settings/zenml.env whole
  head -c 40 whole >.stack/native/settings/zenml.env
  run -0 mend 'mlflow RUNNING\nzenml STARTING\ndetector STOPPED\n'
  called $'stop zenml\nstart zenml'
  cmp whole .stack/native/settings/zenml.env
}

@test "what an earlier start left is ended before what is starting is waited for" {
  configured
  ZENML_CV_YOLO_CHECKOUT=$CHECKOUT sleep 60 3>&- &
  stray=$!
  run -0 mend 'mlflow STARTING\n'
  within 5 ended "$stray"
}

@test "doctor finds what an earlier start left beside the services, and the remedy ends it" {
  ZENML_CV_YOLO_CHECKOUT=$CHECKOUT sleep 60 3>&- &
  stray=$!
  run -0 native 'native_running() { :; }
    native_ctl() { echo $$; }
    backend_findings'
  said "processes of an earlier start live beside the services (pid $stray sleep since" ': make down, then make up'
  mkdir -m 700 .stack
  echo native >.stack/backend
  run -0 scripts/stop-services.sh
  within 5 ended "$stray"
}
