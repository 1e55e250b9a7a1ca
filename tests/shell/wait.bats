# lib/wait.sh: waiting for health, with a deadline and an early stop.

setup() {
  load helper
  make_checkout
  set_up
  stub_backend 'raise SystemExit(print("mlflow\tno connection") or 1)'
  export START_TIMEOUT=1
}

wait_for() {
  with_libraries env services wait "load_settings; choose_backend; $1 wait_until_healthy; echo healthy"
}

@test "healthy services are not waited for" {
  run -0 wait_for 'services_healthy() { true; };'
  [ "$output" = healthy ]
}

@test "services that become healthy are waited for" {
  run -0 wait_for 'services_healthy() { [ -e asked ] || ! touch asked; };'
  [ "$output" = healthy ]
}

@test "after the deadline it says what is wrong" {
  run -1 wait_for ''
  said 'no connection' 'after 1 s' START_TIMEOUT
  not_said died
}

# shellcheck disable=SC2016 # for the function that is written
@test "a service whose files were deleted is started again at once, another that is silent is not" {
  stub_backend 'import os
if os.path.exists("restarted"): raise SystemExit(0)
print("mlflow\tits files were deleted\nzenml\tno connection")
raise SystemExit(1)'
  echo 'backend_restart() { echo "$1" >>restarted; }' >>scripts/backends/native.sh
  START_TIMEOUT=60 run -0 with_libraries env services wait \
    'load_settings; choose_backend; wait_until_healthy mlflow zenml'
  said 'the files of mlflow were deleted while it ran'
  [ "$(cat restarted)" = mlflow ]
}

@test "a service that died ends the waiting with its last log lines" {
  export START_TIMEOUT=60 ZENML_STATE=failed FOLLOW=1
  SECONDS=0
  run -1 wait_for ''
  [ "$SECONDS" -lt 20 ]
  said 'zenml died: its detail' 'the last 20 lines of zenml'
  not_said 'mlflow died' 'for ever'
}

@test "a service whose launcher refuses to start it says why, once" {
  for prefix in '' 'zenml-1  | '; do
    stub_backend 'raise SystemExit(1)'
    echo "backend_logs() { echo '${prefix}error: zenml.db is damaged: mv it; then make up'; }" >>scripts/backends/native.sh
    START_TIMEOUT=60 ZENML_STATE=failed run -1 wait_for ''
    [ "$output" = 'error: zenml: zenml.db is damaged: mv it; then make up' ]
  done
}
