# The Docker backend with a stub in place of `docker`: what stands in its way, which backend auto
# chooses, what a second `make up` does, what is deleted.
# shellcheck disable=SC2016 # variables of the scripts under test

setup() {
  load helper
  make_checkout
  cp "$REPO/.dockerignore" .
  set_up
  use_free_ports
  stub_docker
}

use_free_ports() {
  local name
  for name in ZENML_PORT MLFLOW_PORT MINIO_PORT MINIO_CONSOLE_PORT; do
    read -r "${name?}"
    export "${name?}"
  done < <("$REAL_PYTHON" -c 'import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(s.getsockname()[1] for s in held), sep="\n")')
}

teardown() {
  [ -z "${LISTENER:-}" ] || kill "$LISTENER"
}

# A `docker` that records what would change something; variables say what is wrong with it.
stub_docker() {
  export CALLS
  write_script "$STUBS/docker" <<'SH'
running() { # what `docker inspect` says of four healthy containers
  for service in mysql object-store mlflow zenml; do echo "$service ${STATUS:-running healthy 0 0 false}"; done
}
case $* in
  'version --format'*) [ -z "${ENGINE_FAULT:-}" ] && echo "${ENGINE_VERSION:-20.10.24+dfsg1}" ;;
  version) echo "$ENGINE_FAULT" >&2 && exit 1 ;;
  'context inspect'*) echo "${DOCKER_ENDPOINT:-unix:///var/run/docker.sock}" ;;
  'context use default') echo "$*" >>"$CALLS" ;;
  'compose version'*) [ -z "${NO_COMPOSE:-}" ] ;;
  'ps --all'*) [ -f "$CALLS.started" ] && echo a b c d || exit "${PS_STATUS:-0}" ;;
  # Ports that follow one another are one range here, as Docker says them.
  ps*'.Ports}}'*) [ -z "${PUBLISHED:-}" ] || echo "127.0.0.1:$PUBLISHED->9000-9001/tcp" ;;
  ps*) [ -z "${PUBLISHED:-}" ] || echo a ;;
  'inspect --format'*HostPort*) echo " 127.0.0.1:${PUBLISHED%-*}  127.0.0.1:${PUBLISHED#*-} " ;;
  'inspect --format'*) running ;;
  'image inspect'*) [ "$3" != "${MISSING_IMAGE:-}" ] ;;
  *'config --quiet') : ;;
  'volume ls'*) echo old_volume ;;
  'volume inspect'*) [ -n "${HAS_DATA:-}" ] ;;
  pull*) echo "$*" >>"$CALLS" && echo 'no such host' >&2 && exit 1 ;;
  compose*)
    while [ "$1" != --env-file ]; do shift; done
    shift 2
    echo "$*" >>"$CALLS"
    [ "$1" != up ] || touch "$CALLS.started"
    [ "$1" != down ] || rm -f "$CALLS.started"
    ;;
  *) echo "$*" >>"$CALLS" ;;
esac
SH
}

# A PATH with the tools of the scripts but without docker and docker-compose.
without_docker() {
  local tool
  mkdir -p "$BATS_TEST_TMPDIR/tools"
  for tool in bash env dirname cat cksum cut id mkdir rm sed awk git uname chmod; do
    ln -sf "$(command -v "$tool")" "$BATS_TEST_TMPDIR/tools/$tool"
  done
  rm -f "$STUBS/docker"
  PATH=$BATS_TEST_TMPDIR/tools:$STUBS
}

docker_backend() { with_libraries env secrets services wait "services_healthy() { :; }; load_settings; MODE=docker; choose_backend; $1"; }
chosen() { with_libraries env services 'load_settings; choose_backend; echo "$BACKEND: $BACKEND_REASON"'; }
faults() { [ "${#lines[@]}" = "$1" ] || fail "expected $1 lines, not: $output"; }

@test "an engine and Compose v2: nothing stands in the way" {
  run -0 docker_backend backend_check
  [ -z "$output" ]
}

@test "no docker" {
  without_docker
  run -1 docker_backend backend_check
  faults 1
  said 'docker is not installed' MODE=native
}

@test "an engine that is down" {
  ENGINE_FAULT='Cannot connect to the Docker daemon' run -1 docker_backend backend_check
  faults 1
  said 'does not answer' 'systemctl start docker'
}

@test "an engine on another machine, and the remedy that mends it" {
  export DOCKER_ENDPOINT=tcp://build.example.org:2376
  DOCKER_HOST=$DOCKER_ENDPOINT run -0 docker_backend backend_faults
  faults 1
  said "on another machine ($DOCKER_ENDPOINT): unset DOCKER_HOST; or use MODE=native"
  DOCKER_CONTEXT=build run -0 docker_backend backend_faults
  said ': unset DOCKER_CONTEXT; or'
  run -0 docker_backend backend_faults
  said ': docker context use default; or'
  run -0 chosen
  [[ $output == native:*'another machine'* ]]
  for here in unix:///run/user/1000/docker.sock npipe:////./pipe/docker_engine tcp://127.0.0.1:2375; do
    DOCKER_ENDPOINT=$here run -0 docker_backend backend_faults
    [ "$output" = '' ]
  done
}

@test "no permission to use the socket" {
  ENGINE_FAULT='permission denied while trying to connect' run -1 docker_backend backend_check
  faults 1
  said 'no permission' 'usermod -aG docker'
}

@test "no Compose v2 plugin" {
  without_docker
  stub_docker
  NO_COMPOSE=1 run -1 docker_backend backend_check
  faults 1
  said 'plugin is not installed' docs.docker.com/compose/install
}

@test "Compose v1 only" {
  write_script "$STUBS/docker-compose" <<<:
  NO_COMPOSE=1 run -1 docker_backend backend_check
  faults 1
  said 'docker-compose is here, but not as the Compose v2 plugin'
}

@test "an engine that is too old" {
  ENGINE_VERSION=19.03.15 run -1 docker_backend backend_check
  faults 1
  said 'Docker Engine 19.03.15 is too old' 20.10
}

@test "engines from 20.10 on, and development builds, will do" {
  for version in 20.10.0 23.0.1 28.2.2 dev; do
    ENGINE_VERSION=$version run -0 docker_backend backend_check
  done
}

@test "everything that is wrong is said at once" {
  ENGINE_VERSION=18.9 NO_COMPOSE=1 run -1 docker_backend backend_check
  faults 2
}

@test "auto takes Docker where it can, and says why" {
  run -0 chosen
  [ "$output" = 'docker: an engine and Compose v2 answer' ]
}

@test "auto takes native where Docker can't be used, and says why" {
  ENGINE_FAULT='Cannot connect' run -0 chosen
  [ "$output" = 'native: the Docker engine does not answer' ]
  NO_COMPOSE=1 run -0 chosen
  [[ $output == native:*Compose* ]]
  without_docker
  run -0 chosen
  [ "$output" = 'native: docker is not installed' ]
}

@test "auto tells of data that the other backend holds" {
  mkdir -p .stack/native && : >.stack/native/applied.env
  run -0 chosen
  said 'docker:' 'earlier data are in the native backend: MODE=native'
}

@test "auto stays with the backend that runs" {
  mkdir .stack && echo native >.stack/backend
  run -0 chosen
  [ "$output" = 'native: it runs already' ]
}

@test "the first up builds, starts and remembers; the second changes nothing" {
  docker_backend backend_up
  called $'build\nup --detach --remove-orphans --force-recreate\nimage prune --force --filter '"label=com.docker.compose.project=$(project)"
  : >"$CALLS"
  run -0 docker_backend backend_up
  called ''
}

project() { docker_backend 'echo $COMPOSE_PROJECT'; }

@test "services that were stopped are started, and nothing is built" {
  docker_backend backend_up
  : >"$CALLS"
  rm "$CALLS.started"
  docker_backend backend_up
  called 'up --detach --remove-orphans'
}

@test "a changed secret makes new containers, a changed lock the images" {
  docker_backend backend_up
  : >"$CALLS"
  MYSQL_ZENML_PASSWORD=another-password docker_backend backend_up
  called 'up --detach --remove-orphans --force-recreate'
  : >"$CALLS"
  echo '# changed' >>requirements.txt
  MYSQL_ZENML_PASSWORD=another-password docker_backend backend_up
  grep -qx build "$CALLS"
}

@test "what the detector is to serve makes a new detector, and leaves the others alone" {
  docker_backend backend_up
  SERVE_MODEL=forklifts docker_backend 'backend_start detector'
  : >"$CALLS"
  SERVE_MODEL=forklifts docker_backend 'backend_up && backend_start detector'
  called $'up --detach --remove-orphans\nup --detach --no-deps detector'
  : >"$CALLS"
  SERVE_MODEL=lemons docker_backend 'backend_up && backend_start detector'
  called $'up --detach --remove-orphans\nup --detach --no-deps --force-recreate detector'
}

@test "an image that can't be pulled is named, and the setting that replaces it" {
  MISSING_IMAGE=nowhere/store:1 MINIO_IMAGE=nowhere/store:1 run -1 docker_backend backend_up
  said 'nowhere/store:1 could not be pulled' 'set MINIO_IMAGE in .env'
  called 'pull nowhere/store:1'
}

@test "ports that this project's containers publish are not in the way" {
  "$REAL_PYTHON" -c 'import socket, time
while True:  # two ports that follow one another, as the store and its console have them
    first = socket.create_server(("127.0.0.1", 0))
    try:
        second = socket.create_server(("127.0.0.1", first.getsockname()[1] + 1))
        break
    except OSError:
        first.close()
print(first.getsockname()[1], second.getsockname()[1], flush=True); time.sleep(60)' >ports 3>&- &
  LISTENER=$!
  within 10 test -s ports
  read -r MINIO_PORT MINIO_CONSOLE_PORT <ports
  export MINIO_PORT MINIO_CONSOLE_PORT PUBLISHED="$MINIO_PORT-$MINIO_CONSOLE_PORT"
  run docker_backend docker_check_ports
  [ "$status" = 0 ] || fail "$output"
  PUBLISHED='' run -1 docker_backend docker_check_ports
  said "MINIO_PORT $MINIO_PORT is taken by"
}

@test "a port that is taken is named before anything is started" {
  "$REAL_PYTHON" -c 'import socket, sys, time; s = socket.create_server(("127.0.0.1", int(sys.argv[1]))); print("here", flush=True); time.sleep(60)' "$MLFLOW_PORT" >here 3>&- &
  LISTENER=$!
  within 10 test -s here
  run -1 docker_backend backend_up
  said "MLFLOW_PORT $MLFLOW_PORT is taken by" 'set MLFLOW_PORT in .env'
  called ''
}

@test "secrets are files that only their folder hides, one for each service" {
  docker_backend write_docker_secrets
  [ -n "$(find .stack/docker/secrets -prune -perm 700)" ]
  [ -z "$(find .stack/docker/secrets -type f ! -perm 644)" ]
  root=$(sed -n 's/^MINIO_ROOT_PASSWORD=//p' .env)
  [ "$(grep -rlF "$root" .stack/docker)" = .stack/docker/secrets/store-root-password ]
}

@test "two checkouts have two projects" {
  first=$(project)
  make_checkout 'another checkout'
  set_up
  [ "$first" != "$(project)" ]
}

@test "states: a service that ended or keeps restarting has failed" {
  touch "$CALLS.started"
  run -0 docker_backend service_states
  [ "$output" = $'object-store\trunning\thealthy\nmlflow\trunning\thealthy\nzenml\trunning\thealthy' ]
  STATUS='exited - 0 3 true' run -0 docker_backend backend_states
  said $'mysql\tfailed\texit code 3, out of memory'
  STATUS='restarting unhealthy 4 127 false' run -0 docker_backend backend_states
  said $'mlflow\tfailed\tkeeps restarting (exit code 127)'
  STATUS='restarting starting 1 1 false' run -0 docker_backend backend_states
  said $'mlflow\tstarting'
  STATUS='running starting 0 0 false' run -0 docker_backend backend_states
  said $'zenml\tstarting'
  rm "$CALLS.started"
  run -0 docker_backend backend_states
  said $'zenml\tstopped'
  PS_STATUS=1 run -0 docker_backend backend_states
  said $'zenml\tfailed\tthe Docker engine does not answer'
}

@test "down keeps the volumes, destroy deletes them and the built images" {
  docker_backend backend_up
  : >"$CALLS"
  docker_backend backend_down
  called 'down --remove-orphans'
  docker_backend backend_destroy
  grep -qx 'down --remove-orphans --volumes --rmi local' "$CALLS"
  grep -qx 'volume rm old_volume' "$CALLS"
  [ ! -e .stack/docker ]
}

@test "destroy without an engine: nothing to do, or refused where there may be volumes" {
  mkdir -p .stack/docker/secrets
  ENGINE_FAULT='Cannot connect' run -0 docker_backend backend_destroy
  [ ! -e .stack/docker ]
  docker_backend backend_up
  ENGINE_FAULT='Cannot connect' run -1 docker_backend backend_destroy
  said 'does not answer' 'could not be deleted'
  [ -e .stack/docker/applied ]
}

@test "other versions see the databases only after a copy, which a failure puts back" {
  stub_docker
  HAS_DATA=1 run -0 docker_backend backend_up
  [ "$(grep -E '^(down|run|up)' "$CALLS" | cut -d' ' -f1)" = $'down\nrun\nup' ] || fail "$(cat "$CALLS")"
  [ ! -e .stack/docker/migrating ]
  : >"$CALLS"
  echo mlflow==1 >.stack/docker/applied/versions
  echo other >.stack/docker/applied/all
  HAS_DATA=1 run -1 docker_backend 'wait_until_healthy() { exit 1; }; backend_up'
  said 'are as they were'
  [ "$(grep -cE '^run .*_mysql-before:/from:ro .*_mysql:/to' "$CALLS")" = 1 ] || fail "$(cat "$CALLS")"
  [ ! -e .stack/docker/migrating ]
}
