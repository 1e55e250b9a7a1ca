# Starting, stopping and looking at the services, with a stub in place of the backend.
# shellcheck disable=SC2016 # variables of the scripts under test

setup() {
  load helper
  make_checkout
  set_up
  stub_backend
}

@test "starting prints the addresses, and narrates on stderr" {
  run -0 --separate-stderr scripts/start-services.sh
  called up
  said http://localhost:8080 http://localhost:5000 http://localhost:9000
  [ "${#lines[@]}" = 6 ]
  [[ $stderr == *"backend: native (MODE=native)"* ]]
  [ "$(cat .stack/backend)" = native ]
}

@test "starting remembers the first sign-ins privately, and only the first" {
  run -0 scripts/start-services.sh
  is_private .stack/native/applied.env
  first=$(grep ^ZENML_ADMIN_PASSWORD= .env)
  grep -qx "$first" .stack/native/applied.env
  sed -i.bak 's/^ZENML_ADMIN_PASSWORD=.*/ZENML_ADMIN_PASSWORD=another-password/' .env
  run -0 scripts/start-services.sh
  grep -qx "$first" .stack/native/applied.env
}

@test "a service that dies at start is an error with its log" {
  stub_backend 'raise SystemExit(1)'
  ZENML_STATE=failed run -1 scripts/start-services.sh
  said 'zenml died' 'the last 20 lines of zenml'
}

@test "a faulty setting starts nothing" {
  ZENML_PORT=http run -1 scripts/start-services.sh
  said ZENML_PORT
  called ''
  [ ! -e .stack ]
}

@test "a torn note of the running backend is made anew" {
  mkdir .stack
  printf '\001\377{half\n=' >.stack/backend
  run -0 scripts/start-services.sh
  [ "$(cat .stack/backend)" = native ]
}

@test "the running backend wins, and another MODE is refused with the remedy" {
  mkdir .stack
  echo native >.stack/backend
  MODE=auto run -0 scripts/start-services.sh
  MODE=docker run -1 scripts/start-services.sh
  said 'runs on the native backend' 'make down'
}

@test "a first start that fails binds nobody to the backend, unless something runs" {
  stub_backend 'raise SystemExit(1)'
  # More than a pipe holds: whoever stops reading early would end who writes.
  # shellcheck disable=SC2028 # for the function that is written
  echo "backend_states() { printf 'mlflow\\t%s\\t-\\n' \$MLFLOW_STATE; printf 'zenml\\tstopped\\t%0200000d\\n' 0; }" >>scripts/backends/native.sh
  START_TIMEOUT=1 MLFLOW_STATE=running run -1 scripts/start-services.sh
  [ "$(cat .stack/backend)" = native ]
  rm .stack/backend
  START_TIMEOUT=1 MLFLOW_STATE=stopped run -1 scripts/start-services.sh
  [ ! -e .stack/backend ]
}

@test "stopping keeps the data" {
  run -0 scripts/start-services.sh
  : >"$CALLS"
  run -0 scripts/stop-services.sh
  called down
  [ ! -e .stack/backend ]
  [ -e .stack/native/applied.env ]
}

@test "stopping what does not run is not an error" {
  run -0 scripts/stop-services.sh
  [ "$output" = 'services: not running' ]
  called ''
}

@test "stopping needs no setup when nothing runs" {
  rm -rf .env .venv
  run -0 scripts/stop-services.sh
  [ ! -e .stack ]
}

@test "the status of services that do not run says how to start them" {
  run -1 scripts/show-status.sh
  said 'not running' 'make up'
}

@test "the status shows each service's state and health" {
  run -0 scripts/start-services.sh
  stub_backend 'raise SystemExit(print("mlflow\thealthy\nzenml\tHTTP 500") or 1)'
  run -1 scripts/show-status.sh
  grep -qE '^mlflow +running +healthy +http://localhost:5000$' <<<"$output"
  grep -qE '^zenml +running +HTTP 500 +http://localhost:8080$' <<<"$output"
}

@test "a service that answers is running, whatever the engine's own check has seen so far" {
  stub_backend 'print("mlflow\thealthy\nzenml\thealthy")'
  run -0 scripts/start-services.sh
  ZENML_STATE=starting run -0 scripts/show-status.sh
  grep -qE '^zenml +running +healthy ' <<<"$output"
}

@test "the logs of an unknown service name those there are" {
  SERVICE=mysqld run -1 scripts/show-logs.sh
  said SERVICE=mysqld object-store mlflow zenml
}

@test "MySQL has logs with Docker only" {
  SERVICE=mysql run -1 scripts/show-logs.sh
  said 'SERVICE=mysql: on the native backend choose one of: object-store mlflow zenml'
}

@test "logs before the first start say how to start" {
  run -1 scripts/show-logs.sh
  said 'no logs yet' 'make up'
}

@test "logs are those of the asked service, as many lines as asked" {
  mkdir -p .stack/native
  LINES=7 SERVICE=zenml run -0 scripts/show-logs.sh
  [ "$output" = 'the last 7 lines of zenml' ]
  run -0 scripts/show-logs.sh
  [ "$output" = 'the last 100 lines of all' ]
}

@test "the credentials are printed on request" {
  run -0 --separate-stderr scripts/show-credentials.sh
  said "$(sed -n 's/^ZENML_ADMIN_PASSWORD=//p' .env)" "$(sed -n 's/^MINIO_ROOT_PASSWORD=//p' .env)"
  not_said "$(sed -n 's/^MLFLOW_ADMIN_PASSWORD=//p' .env)"
  BIND_ADDRESS=192.168.1.20 run -0 scripts/show-credentials.sh
  said "$(sed -n 's/^MLFLOW_ADMIN_PASSWORD=//p' .env)" http://192.168.1.20:5000
}

# shellcheck disable=SC2016 # the stub expands it
@test "the pipeline is given what make was given" {
  write_script .venv/bin/python <<<'printf "%s\n" "$* EPOCHS=${EPOCHS:-}"'
  EPOCHS=5 FORCE=1 run -0 scripts/run-pipeline.sh baseline
  [ "$output" = '-m src.zenml_pipelines.run_yolo_pipeline_baseline --force EPOCHS=5' ]
  run -0 scripts/run-pipeline.sh grid
  [ "$output" = '-m src.zenml_pipelines.run_yolo_pipeline_grid EPOCHS=' ]
}

@test "scripts run from any folder" {
  cd /
  run -0 "$CHECKOUT/scripts/start-services.sh"
  run -0 "$CHECKOUT/scripts/show-credentials.sh"
  run -0 "$CHECKOUT/scripts/stop-services.sh"
  called $'up\ndown'
}
