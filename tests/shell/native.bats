# The native backend: what supervisor is given.

setup() {
  load helper
  make_checkout
  set_up
  export MODE=native
}

teardown() {
  [ -z "${LISTENER:-}" ] || kill "$LISTENER"
}

native() { with_libraries env backend "load_settings; choose_backend; $1"; }

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

@test "no secret stands in a command line" {
  native native_config >conf
  [ "$(grep -c ^command= conf)" = 3 ]
  while IFS= read -r secret; do
    ! grep ^command= conf | grep -F "$secret" || fail "a secret is in a command line"
  done < <(secrets)
}

@test "each server is given its own secrets and no other's" {
  native native_config >conf
  root=$(sed -n 's/^MINIO_ROOT_PASSWORD=//p' .env)
  mlflow=$(sed -n 's/^MLFLOW_S3_SECRET_KEY=//p' .env)
  [ "$(as_supervisor_reads conf object-store MINIO_ROOT_PASSWORD)" = "$root" ]
  [ "$(as_supervisor_reads conf mlflow AWS_SECRET_ACCESS_KEY)" = "$mlflow" ]
  [ "$(grep -cF "$root" conf)" = 1 ]
  [ "$(grep -cF "$mlflow" conf)" = 1 ]
}

@test "the servers listen on the settings' address and ports" {
  BIND_ADDRESS=192.168.1.20 ZENML_PORT=8181 native native_config >conf
  [[ $(as_supervisor_reads conf zenml) == *"--host 192.168.1.20 --port 8181 "* ]]
  [[ $(as_supervisor_reads conf object-store) == *" 192.168.1.20:9000" ]]
}

@test "MLflow asks for a sign-in only where others can reach it" {
  native native_config >conf
  [[ $(as_supervisor_reads conf mlflow) != *basic-auth* ]]
  BIND_ADDRESS=192.168.1.20 native native_config >conf
  [[ $(as_supervisor_reads conf mlflow) == *'--app-name basic-auth'* ]]
}

@test "supervisor understands a path with spaces and percent signs" {
  make_checkout 'a 100% checkout'
  set_up
  native native_config >conf
  [ "$(as_supervisor_reads conf zenml ZENML_CONFIG_PATH)" = "$CHECKOUT/.stack/native/zenml" ]
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

@test "a file is installed privately, and only when it changes" {
  run -0 native 'echo one | native_install "a file"'
  is_private 'a file'
  run -1 native 'echo one | native_install "a file"'
  run -0 native 'echo two | native_install "a file"'
  [ "$(cat 'a file')" = two ]
  [ ! -e 'a file.new' ]
}

@test "services that do not run are stopped" {
  run -0 native backend_states
  [ "$output" = $'object-store\tstopped\t-\nmlflow\tstopped\t-\nzenml\tstopped\t-' ]
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
