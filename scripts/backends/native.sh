# native.sh: the services as plain processes under supervisor. See lib/backend.sh for the contract.

NATIVE_CONF=$BACKEND_STATE/supervisord.conf

backend_check() {
  case $(uname -s) in
    Linux | Darwin) ;;
    *) error "the native backend runs on Linux and macOS (and in WSL2)" && return 1 ;;
  esac
}

# A Unix socket's path ends at 107 bytes (103 on macOS), and supervisor adds a pid to it at first.
native_socket_folder() {
  if [ ${#BACKEND_STATE} -lt 75 ]; then
    printf '%s' "$BACKEND_STATE"
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

# $1 name, $2 command, $3 environment
native_program() {
  cat <<PROGRAM

[program:$1]
command=$2
environment=$3
stdout_logfile=.stack/native/logs/$1.log
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
}

# Everything runs in ROOT with relative paths, so that a path with spaces or % needs no quoting.
# Secrets stand in this file (0600) and in the programs' environment, never in a command line.
native_config() {
  local auth='' allowed
  allowed="localhost:*,127.0.0.1:*,$CLIENT_HOST:*"
  [ "$LOOPBACK" = true ] || auth='--app-name basic-auth'
  cat <<CONF
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
  native_program object-store \
    "juicefs --no-agent gateway --multi-buckets --keep-etag --object-tag --object-meta --no-usage-report --no-banner --no-color --log .stack/native/logs/object-store-gateway.log --cache-dir .stack/native/object-store/cache --cache-size 0 --buffer-size 64 --metrics 127.0.0.1:0 --backup-meta 0 sqlite3://.stack/native/object-store/meta.db $BIND_ADDRESS:$MINIO_PORT" \
    "HOME=\"$(native_quote "$BACKEND_STATE/object-store")\",GOGC=\"50\",MINIO_ROOT_USER=\"$MINIO_ROOT_USER\",MINIO_ROOT_PASSWORD=\"$MINIO_ROOT_PASSWORD\""
  native_program mlflow \
    "python -m mlflow server --host $BIND_ADDRESS --port $MLFLOW_PORT --workers 1 $auth --backend-store-uri sqlite:///.stack/native/mlflow/mlflow.db --serve-artifacts --artifacts-destination s3://$MLFLOW_BUCKET --allowed-hosts $allowed" \
    "MLFLOW_S3_ENDPOINT_URL=\"$STORE_URL\",AWS_ACCESS_KEY_ID=\"$MLFLOW_S3_ACCESS_KEY\",AWS_SECRET_ACCESS_KEY=\"$MLFLOW_S3_SECRET_KEY\",MLFLOW_SERVER_ENABLE_JOB_EXECUTION=\"false\",MLFLOW_FLASK_SERVER_SECRET_KEY=\"$MLFLOW_SERVER_SECRET_KEY\",MLFLOW_AUTH_CONFIG_PATH=\".stack/native/mlflow/basic_auth.ini\",MLFLOW_AUTH_ADMIN_USERNAME=\"$MLFLOW_ADMIN_USERNAME\",MLFLOW_AUTH_ADMIN_PASSWORD=\"$MLFLOW_ADMIN_PASSWORD\""
  native_program zenml \
    "python -m uvicorn zenml.zen_server.zen_server_api:app --host $BIND_ADDRESS --port $ZENML_PORT --no-server-header" \
    "ZENML_STORE_URL=\"$(native_quote "sqlite:///$BACKEND_STATE/zenml/zenml.db")\",ZENML_CONFIG_PATH=\"$(native_quote "$BACKEND_STATE/zenml")\",ZENML_SERVER_DEPLOYMENT_TYPE=\"other\",ZENML_SERVER_AUTO_ACTIVATE=\"true\",ZENML_DEFAULT_USER_NAME=\"$ZENML_ADMIN_USERNAME\",ZENML_DEFAULT_USER_PASSWORD=\"$ZENML_ADMIN_PASSWORD\",ZENML_SERVER_JWT_SECRET_KEY=\"$ZENML_JWT_SECRET_KEY\",ZENML_SECRETS_STORE_ENCRYPTION_KEY=\"$ZENML_ENCRYPTION_KEY\""
}

native_quote() { printf '%s' "${1//%/%%}"; }

native_auth_config() {
  cat <<'INI'
[mlflow]
default_permission = READ
database_uri = sqlite:///.stack/native/mlflow/basic_auth.db
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI
}

# Write stdin to a file of mode 0600; return 1 when it held that already.
native_install() {
  local file=$1 new=$1.new
  (umask 077 && cat >"$new")
  if cmp -s "$new" "$file"; then
    rm -f "$new"
    return 1
  fi
  mv "$new" "$file"
}

native_ctl() { "$PYTHON_BIN" -m supervisor.supervisorctl -c "$NATIVE_CONF" "$@"; }

# Only this checkout's own: a copy of a checkout brings along the other's configuration.
native_running() {
  grep -qxF "file=$(native_socket)" "$NATIVE_CONF" 2>/dev/null && native_ctl pid >/dev/null 2>&1
}

native_start_supervisor() {
  local taken
  "$PYTHON_BIN" -m src.services.processes end
  taken=$("$PYTHON_BIN" -m src.services.processes ports MINIO_PORT MLFLOW_PORT ZENML_PORT) || die "$taken"
  if [ ! -f "$BACKEND_STATE/object-store/meta.db" ]; then
    HOME=$BACKEND_STATE/object-store "$VENV/bin/juicefs" --no-agent format --storage file \
      --bucket "$BACKEND_STATE/object-store/data/" --trash-days 0 --no-color \
      "sqlite3://.stack/native/object-store/meta.db" store >"$BACKEND_STATE/logs/format.log" 2>&1 ||
      die "the object store's volume could not be made: $(tail -n 3 "$BACKEND_STATE/logs/format.log")"
  fi
  # A clean environment: programs inherit supervisord's own.
  (umask 077 && exec env -i PATH="$VENV/bin:/usr/bin:/bin:/usr/sbin:/sbin" HOME="$BACKEND_STATE" \
    TMPDIR="$BACKEND_STATE/tmp" LANG="${LANG:-C.UTF-8}" PYTHONUNBUFFERED=1 ZENML_CV_YOLO_CHECKOUT="$ROOT" \
    ZENML_ANALYTICS_OPT_IN=false MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true \
    AWS_EC2_METADATA_DISABLED=true AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null \
    ZENML_LOGGING_COLORS_DISABLED=true MALLOC_ARENA_MAX=2 "$PYTHON_BIN" -m supervisor.supervisord -c "$NATIVE_CONF" 9<&-)
}

backend_up() {
  local folder changed=''
  for folder in logs object-store mlflow zenml tmp; do
    ensure_private_folder "$BACKEND_STATE/$folder"
  done
  native_ensure_socket_folder
  if native_config | native_install "$NATIVE_CONF"; then changed=yes; fi
  if native_auth_config | native_install "$BACKEND_STATE/mlflow/basic_auth.ini"; then changed=yes; fi
  if ! native_running; then
    say "starting the services"
    native_start_supervisor
  elif [ -n "$changed" ]; then
    say "settings have changed: restarting what they concern"
    native_ctl update >&2
  fi
}

native_ensure_socket_folder() {
  local folder
  folder=$(native_socket_folder)
  ensure_private_folder "$folder"
  [ -O "$folder" ] || die "$folder belongs to somebody else: set TMPDIR to a folder of your own"
}

backend_states() {
  local service state detail
  while read -r service state detail; do
    case $service in object-store | mlflow | zenml) ;; *) continue ;; esac
    case $state in
      RUNNING) state=running ;;
      STARTING | BACKOFF) state=starting ;;
      FATAL | EXITED | UNKNOWN) state=failed ;;
      *) state=stopped ;;
    esac
    printf '%s\t%s\t%s\n' "$service" "$state" "$detail"
  done < <(if native_running; then native_ctl status; else printf '%s STOPPED -\n' object-store mlflow zenml; fi)
}

backend_logs() {
  local lines=$1 service=${2:-} files=()
  if [ -n "$service" ]; then
    files=("$BACKEND_STATE/logs/$service.log")
  else
    files=("$BACKEND_STATE"/logs/{object-store,mlflow,zenml}.log)
  fi
  if [ -n "${FOLLOW:-}" ]; then
    exec tail -n "$lines" -F "${files[@]}"
  else
    tail -n "$lines" "${files[@]}"
  fi
}

backend_down() {
  local pid deadline=$((SECONDS + 60))
  if native_running; then
    pid=$(native_ctl pid)
    native_ctl shutdown >/dev/null
    while kill -0 "$pid" 2>/dev/null; do
      [ "$SECONDS" -lt "$deadline" ] || die "supervisord (pid $pid) does not end: see make logs"
      sleep 0.1
    done
  fi
  "$PYTHON_BIN" -m src.services.processes end
  [ "$(native_socket_folder)" = "$BACKEND_STATE" ] || rm -rf "$(native_socket_folder)"
}

backend_destroy() {
  backend_down
  rm -rf "$BACKEND_STATE"
}
