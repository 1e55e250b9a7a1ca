# docker.sh: the services in containers. See lib/services.sh for the contract.
#
# compose/compose.yaml works without this too; here are the checks, and the comparison that makes a
# second `make up` a no-op. .stack/docker/ holds:
#   secrets/    what the containers mount: see lib/secrets.sh
#   applied/    hashes of what the images and containers were last made of
#   migrating   while other versions of MLflow and ZenML migrate their databases: see below
#   logs/       what `docker compose build` and `up` said

DOCKER_STATE=$STATE/docker
DOCKER_COMPOSE=(docker compose --project-name "$COMPOSE_PROJECT" --file "$ROOT/compose/compose.yaml" --env-file "$ROOT/.env")

docker_compose() {
  local name
  # The process environment wins over .env here as everywhere.
  for name in $(docker_settings); do export "${name?}"; done
  "${DOCKER_COMPOSE[@]}" "$@"
}

# The settings that compose.yaml takes.
docker_settings() {
  grep -oE '\$\{[A-Z_0-9]+' compose/compose.yaml | cut -c3- | sort -u | grep -Fxf <(sed -n 's/^\([A-Z0-9_]*\)=.*/\1/p' .env.example)
}

# --- Can it run here? -----------------------------------------------------------------------------

backend_faults() {
  local version said host
  if ! command -v docker >/dev/null; then
    echo "docker is not installed: see https://docs.docker.com/get-docker, or use MODE=native"
    return
  fi
  # A bind mount and a published port are the engine's machine's.
  host=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null) || :
  case $host in
    '' | unix://* | npipe://* | fd://* | tcp://localhost:* | tcp://127.*) ;;
    *)
      said="docker context use default"
      [ -z "${DOCKER_CONTEXT:-}" ] || said="unset DOCKER_CONTEXT"
      [ -z "${DOCKER_HOST:-}" ] || said="unset DOCKER_HOST"
      echo "the Docker engine is on another machine ($host): $said; or use MODE=native"
      return
      ;;
  esac
  if version=$(docker version --format '{{.Server.Version}}' 2>/dev/null) && [ -n "$version" ]; then
    docker_suits "$version" ||
      echo "Docker Engine $version is too old: update it to 20.10 or newer, or use MODE=native"
  else
    said=$(docker version 2>&1 >/dev/null) || : # the failure is what is being looked at
    case $said in
      *'ermission denied'*)
        echo "no permission to use the Docker engine: sudo usermod -aG docker $(id -un), then sign in again; or use MODE=native"
        ;;
      *)
        echo "the Docker engine does not answer: start Docker Desktop, or sudo systemctl start docker; or use MODE=native"
        ;;
    esac
  fi
  if docker compose version >/dev/null 2>&1; then return; fi
  if command -v docker-compose >/dev/null; then
    echo "docker-compose is here, but not as the Compose v2 plugin (docker compose): see https://docs.docker.com/compose/install, or use MODE=native"
  else
    echo "the Compose v2 plugin is not installed: see https://docs.docker.com/compose/install, or use MODE=native"
  fi
}

# $1: the engine's version, such as 20.10.24+dfsg1
docker_suits() {
  local major=${1%%.*} minor=${1#*.}
  minor=${minor%%.*}
  case $major$minor in *[!0-9]*) return 0 ;; esac # a development build
  [ "$major" -gt 20 ] || { [ "$major" -eq 20 ] && [ "$minor" -ge 10 ]; }
}

# --- Up -------------------------------------------------------------------------------------------

docker_hash() { git hash-object --stdin; }

# Whether a part ($1) was last made of what now has the hash $2.
docker_applied() { [ "$(cat "$DOCKER_STATE/applied/$1" 2>/dev/null)" = "$2" ]; }

# What the build sees is what .dockerignore lets through.
# shellcheck disable=SC2046 # one word for each file
docker_build_hash() {
  { echo "$PYTHON_IMAGE" && cat .dockerignore compose/Dockerfile $(sed -n 's/^!//p' .dockerignore); } | docker_hash
}

# What the containers are made of beside images and secrets.
docker_description() {
  local name
  cat compose/compose.yaml
  for name in $(docker_settings); do printf '%s=%s\n' "$name" "${!name}"; done
}

# $1: the setting that names an image
docker_ensure_image() {
  if docker image inspect "${!1}" >/dev/null 2>&1; then return; fi
  say "pulling ${!1}"
  docker pull "${!1}" >&2 ||
    die "the image ${!1} could not be pulled (see above): check the network, or set $1 in .env to one that this machine can get"
}

# "address:port" of all that this project's containers publish. Not `docker ps`, which says 9000 and
# 9001 as 9000-9001.
docker_published() {
  local ids
  ids=$(docker ps --quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT") || return
  [ -n "$ids" ] || return 0
  # shellcheck disable=SC2086 # one word for each container
  docker inspect --format '{{range .NetworkSettings.Ports}}{{range .}} {{.HostIp}}:{{.HostPort}} {{end}}{{end}}' $ids
}

# Ports that our own containers publish are not in the way.
docker_check_ports() {
  local name published taken names=()
  published=$(docker_published)
  for name in $PORTS; do
    case $published in
      *" $BIND_ADDRESS:${!name} "*) ;;
      *) names+=("$name") ;;
    esac
  done
  [ ${#names[@]} -gt 0 ] || return 0
  taken=$("$PYTHON_BIN" -m src.services.processes ports "${names[@]}") || die "$taken"
}

# Run a compose command quietly; its last lines show when it fails. $1 names the log too.
docker_logged() {
  local log=$DOCKER_STATE/logs/$1.log
  docker_compose "$@" >"$log" 2>&1 || docker_failed "$1"
}

docker_failed() {
  tail -n 20 "$DOCKER_STATE/logs/$1.log" >&2
  die "docker compose $1 failed: see above, and .stack/docker/logs/$1.log"
}

# Compose waits for each service's health before it starts the next: end that when one has died.
docker_start() {
  local pid
  docker_compose config --quiet || die "compose/compose.yaml can't be read: see above"
  without_locks "${DOCKER_COMPOSE[@]}" up --detach --remove-orphans "$@" >"$DOCKER_STATE/logs/up.log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.5
    if report_failures; then
      kill "$pid" 2>/dev/null || : # it may have ended meanwhile
      exit 1
    fi
  done
  wait "$pid" || docker_failed up
}

# Set build, secrets and all: hashes of what the images and the containers are to be made of. The
# settings of a service that is started by itself are no reason to make the others again.
docker_wanted() {
  build=$(docker_build_hash)
  secrets=$({ docker_service_settings always && docker_own_secrets; } | docker_hash)
  all=$({ echo "$build $secrets" && docker_service_settings optional && docker_description; } | docker_hash)
}

docker_service_settings() {
  local service kind
  for service in $LAUNCHED; do
    if is_optional "$service"; then kind=optional; else kind=always; fi
    [ "$kind" != "$1" ] || service_settings "$service"
  done
}

# Those that no launcher is given.
docker_own_secrets() { printf '%s\n' "$MYSQL_ROOT_PASSWORD" "$MINIO_ROOT_PASSWORD" && mysql_users; }

backend_settled() {
  local build secrets all
  docker_wanted
  docker_applied all "$all" && docker_all_up
}

backend_up() {
  local build secrets all name changed=() rebuilt='' busy=''
  ensure_private_folder "$DOCKER_STATE/applied"
  ensure_private_folder "$DOCKER_STATE/logs"
  docker_wanted
  if docker_applied all "$all"; then
    if docker_all_up; then return; fi
  elif [ -n "$(docker_inspect)" ] && ! try_lock stack "make up" --now; then
    busy=yes
  fi
  docker_check_ports
  docker_remove_broken
  say "starting the services"
  if [ -n "$busy" ]; then
    docker_start --no-recreate
    die "what has changed (settings, code or images) waits: the services that run were left as they are"
  fi
  write_docker_secrets
  for name in $IMAGES; do docker_ensure_image "$name"; done
  if ! docker_applied build "$build"; then
    docker_ensure_image PYTHON_IMAGE
    say "building the images of MLflow and ZenML (some minutes the first time)"
    docker_logged build
    echo "$build" | ensure_file "$DOCKER_STATE/applied/build" 600
    rebuilt=yes
  fi
  # Compose doesn't notice that a mounted file has changed.
  docker_applied secrets "$secrets" || changed=(--force-recreate)
  docker_protect_databases
  if [ ! -f "$DOCKER_STATE/migrating" ]; then
    docker_start ${changed[@]+"${changed[@]}"}
  elif ! (docker_start ${changed[@]+"${changed[@]}"} && wait_until_healthy); then
    docker_put_back
    die "the databases could not be migrated (see above) and are as they were: check out the version of this project that made them, then make up"
  fi
  docker_versions | ensure_file "$DOCKER_STATE/applied/versions" 600
  rm -f "$DOCKER_STATE/migrating"
  for name in $(docker_inspect | awk '$2 == "running" { print $1 }'); do
    if is_optional "$name"; then backend_start "$name" ${changed[@]+"${changed[@]}"}; fi
  done
  echo "$secrets" | ensure_file "$DOCKER_STATE/applied/secrets" 600
  echo "$all" | ensure_file "$DOCKER_STATE/applied/all" 600
  [ -z "$rebuilt" ] || docker_remove_old_images
}

# What does not start by itself has a profile of its name. More arguments are for `docker compose up`.
backend_start() {
  local build own service=$1
  shift
  write_docker_secrets
  own=$(service_settings "$service" | docker_hash)
  docker_applied "settings-$service" "$own" || set -- --force-recreate "$@"
  build=$(docker_build_hash)
  if ! docker_applied "build-$service" "$build"; then
    docker_ensure_image PYTHON_IMAGE
    say "building the image of $service (a minute the first time)"
    COMPOSE_PROFILES=$service docker_logged build "$service"
    echo "$build" | ensure_file "$DOCKER_STATE/applied/build-$service" 600
  fi
  COMPOSE_PROFILES=$service docker_logged up --detach --no-deps "$@" "$service"
  echo "$own" | ensure_file "$DOCKER_STATE/applied/settings-$service" 600
}

backend_stop() { COMPOSE_PROFILES=$1 docker_logged rm --stop --force "$1"; }

# MLflow's launcher and ZenML migrate their databases in place. So MySQL's volume is copied before
# other versions than the last ones see it, and put back where they fail or `make up` is killed. The
# copy stays until the next upgrade.
docker_protect_databases() {
  [ ! -f "$DOCKER_STATE/migrating" ] || docker_put_back # of a make up that was killed
  if docker_applied versions "$(docker_versions)" || ! docker volume inspect "${COMPOSE_PROJECT}_mysql" >/dev/null 2>&1; then return; fi
  say "copying the databases (volume ${COMPOSE_PROJECT}_mysql-before) before other versions of MLflow and ZenML migrate them"
  COMPOSE_PROFILES='*' docker_logged down
  docker volume create --label "com.docker.compose.project=$COMPOSE_PROJECT" "${COMPOSE_PROJECT}_mysql-before" >/dev/null
  docker_copy_volume mysql mysql-before
  : >"$DOCKER_STATE/migrating"
}

docker_put_back() {
  say "putting the databases back as they were before the upgrade"
  COMPOSE_PROFILES='*' docker_logged down
  docker_copy_volume mysql-before mysql
  rm "$DOCKER_STATE/migrating"
}

docker_versions() { grep -E '^(mlflow|zenml)(\[.*\])?==' requirements.txt; }

# Make one volume ($2) hold what another ($1) does, while no container uses them.
docker_copy_volume() {
  docker run --rm --network none --user 0:0 --entrypoint sh --volume "${COMPOSE_PROJECT}_$1:/from:ro" \
    --volume "${COMPOSE_PROJECT}_$2:/to" "$MYSQL_IMAGE" \
    -c 'find /to -mindepth 1 -delete && cp -a /from/. /to/ && chown --reference=/from /to && chmod --reference=/from /to && sync' >&2 ||
    die "the volume $1 could not be copied to $2 (see above)"
}

# Containers that ended, hang, are paused, unhealthy or half made are made again, so that what
# became of them earlier is not taken for a failure of this start; they keep nothing.
docker_remove_broken() {
  local broken
  broken=$(docker_inspect | awk '$2 != "running" || $3 == "unhealthy" { print $1 }')
  # shellcheck disable=SC2086 # one word for each
  [ -z "$broken" ] || COMPOSE_PROFILES='*' docker_logged rm --stop --force $broken
}

backend_restart() { docker_logged restart "$1"; }

# Images of this project that a newer build has taken the name from.
docker_remove_old_images() {
  docker image prune --force --filter "label=com.docker.compose.project=$COMPOSE_PROJECT" >/dev/null
}

# --- What runs ------------------------------------------------------------------------------------

# "service status health restarts exit-code out-of-memory" lines of this project's containers
docker_inspect() {
  local ids
  ids=$(docker ps --all --quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT" \
    --filter label=com.docker.compose.oneoff=False) || return
  [ -n "$ids" ] || return 0
  # A container that is gone by now is not a fault: Compose replaces them.
  # shellcheck disable=SC2086 # one word for each container
  docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}-{{end}} {{.RestartCount}} {{.State.ExitCode}} {{.State.OOMKilled}}' $ids 2>/dev/null || :
}

docker_all_up() {
  local up service
  up=$(docker_inspect | awk '$2 == "running" && $3 != "unhealthy" { print $1 }')
  for service in $STARTED; do
    # shellcheck disable=SC2086 # one word for each
    is_one_of "$service" $up || return 1
  done
}

backend_states() {
  local found service
  if ! found=$(docker_inspect 2>/dev/null); then
    for service in $STARTED; do
      printf '%s\tfailed\tthe Docker engine does not answer\n' "$service"
    done
    return
  fi
  for service in $SERVICES; do
    awk -v service="$service" '$1 == service' <<<"$found" | docker_state "$service"
  done
}

# Turn one line of docker_inspect, or none, into one of backend_states.
docker_state() {
  local status health restarts code oom state detail=-
  if ! read -r _ status health restarts code oom; then status=none; fi
  [ "$oom" != true ] || code="$code, out of memory"
  case $status in
    none) state=stopped ;;
    running) if [ "$health" = starting ]; then state=starting; else state=running detail=$health; fi ;;
    restarting)
      if [ "$restarts" -ge 3 ]; then
        state=failed detail="keeps restarting (exit code $code)"
      else
        state=starting
      fi
      ;;
    created) state=starting ;;
    exited | dead) state=failed detail="exit code $code" ;;
    *) state=stopped detail=$status ;;
  esac
  printf '%s\t%s\t%s\n' "$1" "$state" "$detail"
}

backend_findings() {
  local build secrets all
  if [ ! -f "$STATE/backend" ]; then
    [ -z "$(docker_inspect 2>/dev/null)" ] || echo "containers of this checkout are left of an earlier start: make up"
    return
  fi
  docker_wanted
  docker_applied all "$all" || echo "the containers run with earlier settings, code or images: make up"
  [ ! -f "$DOCKER_STATE/migrating" ] || echo "an upgrade of the databases was interrupted: make up puts them back"
  (docker_check_ports) 2>&1 | sed 's/^error: //' || :
}

backend_logs() {
  local lines=$1 service=${2:-}
  COMPOSE_PROFILES='*' docker_compose logs --no-color --tail "$lines" ${FOLLOW:+--follow} ${service:+"$service"}
}

# --- Down -----------------------------------------------------------------------------------------

backend_launch() {
  local service=$1
  shift
  docker_compose exec -T "$service" python -m src.services.launcher "$@"
}

backend_down() {
  backend_check || die "the services were left as they are"
  COMPOSE_PROFILES='*' docker_logged down --remove-orphans
}

backend_destroy() {
  local volumes
  if [ -n "$(backend_faults)" ]; then
    if [ -d "$DOCKER_STATE/applied" ]; then
      backend_check || die "the containers and volumes of this checkout could not be deleted"
    fi
    rm -rf "$DOCKER_STATE"
    return
  fi
  ensure_private_folder "$DOCKER_STATE/logs"
  COMPOSE_PROFILES='*' docker_logged down --remove-orphans --volumes --rmi local
  # What an earlier version of compose.yaml named otherwise.
  volumes=$(docker volume ls --quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT")
  # shellcheck disable=SC2086 # one word for each volume
  [ -z "$volumes" ] || docker volume rm $volumes >/dev/null
  docker_remove_old_images
  rm -rf "$DOCKER_STATE"
}
