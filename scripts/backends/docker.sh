# docker.sh: the services in containers. See lib/backend.sh for the contract.
#
# compose/compose.yaml works without this too; here are the checks, the secrets' files, and the
# comparison that makes a second `make up` a no-op. .stack/docker/ holds:
#   secrets/    what the containers mount: 0700, its files 0644, since each container has a user of
#               its own who must read them
#   applied/    hashes of what the images and containers were last made of
#   logs/       what `docker compose build` and `up` said

DOCKER_SECRETS=$STATE/docker/secrets

# The Compose project is named after the checkout's path: two checkouts never share volumes.
DOCKER_PROJECT=zenml-cv-yolo-$(cd "$ROOT" && pwd -P | cksum | cut -d' ' -f1)
DOCKER_COMPOSE=(docker compose --project-name "$DOCKER_PROJECT" --file "$ROOT/compose/compose.yaml" --env-file "$ROOT/.env")

# What compose.yaml takes from .env; the process environment wins, as everywhere.
DOCKER_SETTINGS='BIND_ADDRESS ZENML_PORT MLFLOW_PORT MINIO_PORT MINIO_CONSOLE_PORT MINIO_ROOT_USER
  MLFLOW_BUCKET MYSQL_IMAGE MINIO_IMAGE PYTHON_IMAGE'

docker_compose() {
  # shellcheck disable=SC2086,SC2163 # their names, one word each
  export $DOCKER_SETTINGS
  "${DOCKER_COMPOSE[@]}" "$@"
}

# --- Can it run here? -----------------------------------------------------------------------------

# A line on stdout for each thing that stands in the way; none when Docker can be used.
docker_faults() {
  local version said
  if ! command -v docker >/dev/null; then
    echo "docker is not installed: see https://docs.docker.com/get-docker, or use MODE=native"
    return
  fi
  if version=$(docker version --format '{{.Server.Version}}' 2>/dev/null) && [ -n "$version" ]; then
    docker_suits "$version" ||
      echo "Docker Engine $version is too old: update it to 20.10 or newer, or use MODE=native"
  else
    said=$(docker version 2>&1 >/dev/null) || : # the failure is what is being looked at
    case $said in
      *'ermission denied'*)
        echo "no permission to use the Docker engine: sudo usermod -aG docker $(id -un), then sign in anew; or use MODE=native"
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

backend_check() {
  local faults line
  faults=$(docker_faults)
  [ -n "$faults" ] || return 0
  while IFS= read -r line; do error "$line"; done <<<"$faults"
  return 1
}

# --- Secrets --------------------------------------------------------------------------------------

# Write stdin to a secret's file unless it holds that already.
docker_secret() {
  local file=$DOCKER_SECRETS/$1 new=$DOCKER_SECRETS/.$1.new
  cat >"$new"
  chmod 644 "$new"
  if cmp -s "$new" "$file"; then rm -f "$new"; else mv "$new" "$file"; fi
}

docker_write_secrets() {
  local user password
  [ -n "$MYSQL_ROOT_PASSWORD" ] && [ -n "$MYSQL_ZENML_PASSWORD" ] && [ -n "$MYSQL_MLFLOW_PASSWORD" ] ||
    die "MYSQL_ROOT_PASSWORD, MYSQL_ZENML_PASSWORD or MYSQL_MLFLOW_PASSWORD is not set: run make setup"
  ensure_private_folder "$STATE"
  ensure_private_folder "$STATE/docker"
  ensure_private_folder "$DOCKER_SECRETS"
  printf '%s' "$MYSQL_ROOT_PASSWORD" | docker_secret mysql-root-password
  printf '%s' "$MINIO_ROOT_PASSWORD" | docker_secret store-root-password
  printf '[client]\nhost=127.0.0.1\nuser=zenml\npassword=%s\n' "$MYSQL_ZENML_PASSWORD" |
    docker_secret mysql-client.cnf
  # Every start of MySQL runs these, and they must do no harm when repeated: a statement a line.
  {
    for user in zenml mlflow; do
      password=$MYSQL_ZENML_PASSWORD
      [ "$user" = zenml ] || password=$MYSQL_MLFLOW_PASSWORD
      printf "CREATE USER IF NOT EXISTS '%s'@'%%' IDENTIFIED BY '%s';\n" "$user" "$password"
      printf "ALTER USER '%s'@'%%' IDENTIFIED BY '%s';\n" "$user" "$password"
      printf 'CREATE DATABASE IF NOT EXISTS %s;\n' "$user"
      printf "GRANT ALL PRIVILEGES ON %s.* TO '%s'@'%%';\n" "$user" "$user"
    done
    printf "DROP USER IF EXISTS 'root'@'%%';\n"
    printf "ALTER USER 'root'@'localhost' IDENTIFIED BY '%s';\n" "$MYSQL_ROOT_PASSWORD"
  } | docker_secret mysql-users.sql
  docker_secret mlflow.env <<ENV
DATABASE_PASSWORD=$MYSQL_MLFLOW_PASSWORD
AWS_ACCESS_KEY_ID=$MLFLOW_S3_ACCESS_KEY
AWS_SECRET_ACCESS_KEY=$MLFLOW_S3_SECRET_KEY
MLFLOW_FLASK_SERVER_SECRET_KEY=$MLFLOW_SERVER_SECRET_KEY
MLFLOW_AUTH_ADMIN_USERNAME=$MLFLOW_ADMIN_USERNAME
MLFLOW_AUTH_ADMIN_PASSWORD=$MLFLOW_ADMIN_PASSWORD
ENV
  docker_secret zenml.env <<ENV
DATABASE_PASSWORD=$MYSQL_ZENML_PASSWORD
ZENML_DEFAULT_USER_NAME=$ZENML_ADMIN_USERNAME
ZENML_DEFAULT_USER_PASSWORD=$ZENML_ADMIN_PASSWORD
ZENML_SERVER_JWT_SECRET_KEY=$ZENML_JWT_SECRET_KEY
ZENML_SECRETS_STORE_ENCRYPTION_KEY=$ZENML_ENCRYPTION_KEY
ENV
}

# --- Up -------------------------------------------------------------------------------------------

docker_hash() { git hash-object --stdin; }

# Whether a part ($1) was last made of what now has the hash $2.
docker_applied() { [ "$(cat "$BACKEND_STATE/applied/$1" 2>/dev/null)" = "$2" ]; }

docker_settings() {
  local name
  for name in $DOCKER_SETTINGS; do printf '%s=%s\n' "$name" "${!name}"; done
}

# $1: the setting that names an image
docker_ensure_image() {
  if docker image inspect "${!1}" >/dev/null 2>&1; then return; fi
  say "pulling ${!1}"
  docker pull "${!1}" >&2 ||
    die "the image ${!1} could not be pulled (see above): check the network, or set $1 in .env to one that this machine can get"
}

# Ports that our own containers publish are not in the way.
docker_check_ports() {
  local name published taken names=()
  published=$(docker ps --filter "label=com.docker.compose.project=$DOCKER_PROJECT" --format '{{.Ports}}')
  for name in MINIO_PORT MINIO_CONSOLE_PORT MLFLOW_PORT ZENML_PORT; do
    case $published in
      *"$BIND_ADDRESS:${!name}->"*) ;;
      *) names+=("$name") ;;
    esac
  done
  [ ${#names[@]} -gt 0 ] || return 0
  taken=$("$PYTHON_BIN" -m src.services.processes ports "${names[@]}") || die "$taken"
}

# Run a compose command quietly; its last lines show when it fails. $1 names the log too.
docker_logged() {
  local log=$BACKEND_STATE/logs/$1.log
  docker_compose "$@" >"$log" 2>&1 || docker_failed "$1"
}

docker_failed() {
  tail -n 20 "$BACKEND_STATE/logs/$1.log" >&2
  die "docker compose $1 failed: see above, and .stack/docker/logs/$1.log"
}

# Compose waits for each service's health before it starts the next: end that when one has died.
docker_start() {
  local pid
  docker_compose config --quiet || die "compose/compose.yaml can't be read: see above"
  "${DOCKER_COMPOSE[@]}" up --detach --remove-orphans "$@" >"$BACKEND_STATE/logs/up.log" 2>&1 &
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

backend_up() {
  local build secrets all changed=() rebuilt=''
  ensure_private_folder "$BACKEND_STATE/applied"
  ensure_private_folder "$BACKEND_STATE/logs"
  docker_write_secrets
  build=$(cat .dockerignore requirements.txt compose/Dockerfile compose/{server,check}.py compose/zenml - <<<"$PYTHON_IMAGE" | docker_hash)
  secrets=$(cat "$DOCKER_SECRETS"/* | docker_hash)
  all=$({ echo "$build $secrets" && cat compose/compose.yaml && docker_settings; } | docker_hash)
  if docker_applied all "$all" && docker_all_up; then return; fi
  docker_check_ports
  docker_ensure_image MYSQL_IMAGE
  docker_ensure_image MINIO_IMAGE
  if ! docker_applied build "$build"; then
    docker_ensure_image PYTHON_IMAGE
    say "building the images of MLflow and ZenML (some minutes the first time)"
    docker_logged build
    echo "$build" >"$BACKEND_STATE/applied/build"
    rebuilt=yes
  fi
  # Compose doesn't notice that a mounted file has changed.
  docker_applied secrets "$secrets" || changed=(--force-recreate)
  say "starting the services"
  docker_start ${changed[@]+"${changed[@]}"}
  echo "$secrets" >"$BACKEND_STATE/applied/secrets"
  echo "$all" >"$BACKEND_STATE/applied/all"
  [ -z "$rebuilt" ] || docker_remove_old_images
}

# Images of this project that a newer build has taken the name from.
docker_remove_old_images() {
  docker image prune --force --filter "label=com.docker.compose.project=$DOCKER_PROJECT" >/dev/null
}

# --- What runs ------------------------------------------------------------------------------------

# "service status health restarts exit-code out-of-memory" lines of this project's containers
docker_inspect() {
  local ids
  ids=$(docker ps --all --quiet --filter "label=com.docker.compose.project=$DOCKER_PROJECT" \
    --filter label=com.docker.compose.oneoff=False) || return
  [ -n "$ids" ] || return 0
  # A container that is gone by now is no fault: Compose replaces them.
  # shellcheck disable=SC2086 # one word for each container
  docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}-{{end}} {{.RestartCount}} {{.State.ExitCode}} {{.State.OOMKilled}}' $ids 2>/dev/null || :
}

docker_all_up() {
  [ "$(docker_inspect | awk '$2 == "running" && $3 != "unhealthy"' | wc -l)" -eq 4 ]
}

# MySQL shows only when something is wrong with it: the native backend has no such service.
backend_states() {
  local found service state detail
  if ! found=$(docker_inspect 2>/dev/null); then
    for service in object-store mlflow zenml; do
      printf '%s\tfailed\tthe Docker engine does not answer\n' "$service"
    done
    return
  fi
  for service in mysql object-store mlflow zenml; do
    read -r state detail <<<"$(awk -v service="$service" '$1 == service' <<<"$found" | docker_state)"
    [ "$service $state" = "mysql running" ] || printf '%s\t%s\t%s\n' "$service" "$state" "$detail"
  done
}

# Turn one line of docker_inspect into "state detail".
docker_state() {
  local service status health restarts code oom
  if ! read -r service status health restarts code oom; then
    echo 'stopped -'
    return
  fi
  [ "$oom" != true ] || code="$code, out of memory"
  case $status in
    running) if [ "$health" = starting ]; then echo 'starting -'; else echo "running $health"; fi ;;
    restarting)
      if [ "$restarts" -ge 3 ]; then
        echo "failed keeps restarting (exit code $code)"
      else
        echo 'starting -'
      fi
      ;;
    created) echo 'starting -' ;;
    exited | dead) echo "failed exit code $code" ;;
    *) echo "stopped $status" ;;
  esac
}

backend_logs() {
  local lines=$1 service=${2:-}
  docker_compose logs --no-color --tail "$lines" ${FOLLOW:+--follow} ${service:+"$service"}
}

# --- Down -----------------------------------------------------------------------------------------

backend_down() {
  backend_check || die "the services were left as they are"
  docker_logged down --remove-orphans
}

backend_destroy() {
  local volumes
  if [ -n "$(docker_faults)" ]; then
    if [ -d "$BACKEND_STATE/applied" ]; then
      backend_check || die "the containers and volumes of this checkout could not be deleted"
    fi
    rm -rf "$BACKEND_STATE"
    return
  fi
  ensure_private_folder "$BACKEND_STATE/logs"
  docker_logged down --remove-orphans --volumes --rmi local
  # What an earlier version of compose.yaml named otherwise.
  volumes=$(docker volume ls --quiet --filter "label=com.docker.compose.project=$DOCKER_PROJECT")
  # shellcheck disable=SC2086 # one word for each volume
  [ -z "$volumes" ] || docker volume rm $volumes >/dev/null
  docker_remove_old_images
  rm -rf "$BACKEND_STATE"
}
