# make doctor: each check can fail, says why, and what it says to type mends it.
# shellcheck disable=SC2016 # variables of the scripts under test

setup() {
  load helper
  make_checkout
  set_up
  stub_backend 'print("mlflow\thealthy\nzenml\thealthy")'
  cp requirements.txt .venv/.installed-requirements.txt
  echo 'torch==1 cpu' >.venv/.installed-torch
  mkdir -m 700 .stack
  free_ports
  cat >src/bootstrap/__main__.py <<'PYTHON'
import os, sys
fault = os.environ.get("STACK_FAULT", "")
print(fault)
sys.exit(bool(fault))
PYTHON
}

# Ports that no stack of the developer's has.
free_ports() {
  local name port
  while read -r name port; do sed -i.bak "s/^$name=.*/$name=$port/" .env; done < <("$REAL_PYTHON" -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
for name, one in zip(("ZENML_PORT", "MLFLOW_PORT", "MINIO_PORT"), held):
    print(name, one.getsockname()[1])')
  rm .env.bak
}

started() { echo native >.stack/backend; }

# The line that fails and holds $1; there is one.
failing() {
  run -1 scripts/check-health.sh
  grep "^FAIL  .*$1" <<<"$output" || fail "no FAIL with $1 in: $output"
}

# Type what the failing line with $1 says behind its last colon.
follow() { bash -c "$(failing "$1" | sed 's/.*: //')"; }

@test "where all is well, nothing fails" {
  run -0 scripts/check-health.sh
  not_said FAIL
  started
  run -0 scripts/check-health.sh
  not_said FAIL
  said 'mlflow answers' 'zenml answers' 'the ZenML stack are as .env says'
}

@test "after make clean there is no .stack, and nothing fails" {
  rm -r .stack
  run -0 scripts/check-health.sh
  not_said FAIL
  said '.env and .stack are private' 'the ports are free'
}

@test "a .env or .stack that others may read or write is found, and the remedy mends it" {
  for mode in 640 604 620 602 644; do
    chmod $mode .env
    follow 'others may read or write .env'
    is_private .env
    run -0 scripts/check-health.sh
  done
  chmod 755 .stack
  follow 'others may read or write .stack'
  [ -n "$(find .stack -prune -perm 700)" ]
  chmod 755 .stack && chmod 644 .env
  follow 'others may read or write .env .stack'
  run -0 scripts/check-health.sh
}

@test "an environment older than the lock, or half installed, is found, and the remedy mends it" {
  write_script .venv/bin/python <<SH
case "\$*" in
  '-m pip '*) echo pip >>'$CALLS' ;;
  *) exec '$REAL_PYTHON' "\$@" ;;
esac
SH
  touch .venv/.created
  echo older >.venv/.installed-requirements.txt
  follow requirements.txt
  [ -s "$CALLS" ]
  run -0 scripts/check-health.sh
  : >.venv/.installed-torch
  : >"$CALLS"
  follow PyTorch
  [ -s "$CALLS" ]
  run -0 scripts/check-health.sh
}

@test "a checkout that Git takes for somebody else's is found, and Git's own advice mends it" {
  export GIT_TEST_ASSUME_DIFFERENT_OWNER=1
  follow "Git takes $CHECKOUT for somebody else's"
  run -0 scripts/check-health.sh
}

@test "settings that come from the environment are named" {
  MLFLOW_PORT=5055 run -0 scripts/check-health.sh
  said 'from the environment, over .env: MODE MLFLOW_PORT'
}

@test "weights that are not there are named" {
  WEIGHTS=/no/such.pt run -1 scripts/check-health.sh
  said 'FAIL  WEIGHTS=/no/such.pt: no such file' 'auto in .env'
}

@test "a torn copy of a checkpoint is found, and the remedy mends it" {
  mkdir .stack/weights
  echo whole >.stack/weights/new
  mv .stack/weights/new ".stack/weights/$(sha256sum .stack/weights/new | cut -d' ' -f1).pt"
  run -0 scripts/check-health.sh
  not_said FAIL
  local torn
  torn=.stack/weights/$(printf '%064d' 7).pt
  echo half >"$torn"
  failing "$torn is torn"
  follow 'is torn'
  [ ! -e "$torn" ]
  run -0 scripts/check-health.sh
  not_said FAIL
}

@test "a service that gave up, is stopped, is silent or another's: each has its remedy" {
  started
  stub_backend 'raise SystemExit(print("mlflow\thealthy\nzenml\tno connection") or 1)'
  ZENML_STATE=failed failing 'zenml gave up (its detail): make logs SERVICE=zenml'
  echo 'backend_logs() { echo "error: zenml.db is damaged: mv it; then make up"; }' >>scripts/backends/native.sh
  ZENML_STATE=failed failing 'zenml gave up (its detail): zenml.db is damaged: mv it; then make up$'
  ZENML_STATE=stopped failing 'zenml is stopped (its detail): make up$'
  ZENML_STATE=running failing 'zenml runs (its detail) and does not answer (no connection): make up$'
  ZENML_STATE=starting failing 'zenml is starting'
  stub_backend 'raise SystemExit(print("mlflow\thealthy\nzenml\tnot this checkout'"'"'s") or 1)'
  failing 'zenml: another server answers in its place'
  not_said 'ok    zenml'
  stub_backend 'raise SystemExit(print("mlflow\thealthy\nzenml\tits files were deleted") or 1)'
  failing 'zenml runs on files that were deleted: make up$'
}

@test "the stack is asked for, not taken from a file" {
  started
  mkdir -p .stack/native
  echo known >.stack/native/stack-fingerprint
  STACK_FAULT='the ZenML stack is gone: make stack' failing 'the ZenML stack is gone: make stack$'
  rm .stack/native/stack-fingerprint
  run -0 scripts/check-health.sh
}

@test "what else a backend finds fails, each on a line" {
  started
  export FINDINGS=$'one thing: make up\nanother: make up'
  failing 'one thing: make up$'
  failing 'another: make up$'
}

@test "a dead supervisor whose services live on is found, with their pids and since when" {
  rm scripts/backends/native.sh
  cp "$REPO/scripts/backends/native.sh" scripts/backends/
  started
  mkdir -p .stack/native
  failing 'supervisor does not run (.*): make up$'
  ZENML_CV_YOLO_CHECKOUT=$CHECKOUT sleep 60 3>&- &
  child=$!
  failing "supervisor is dead or halted and its services live on (pid $child sleep since 20.*): .*: make up$"
  rm .stack/backend
  failing "pid $child"
  .venv/bin/python -m src.services.processes end # as make up does first
  wait "$child" || :
  run -0 scripts/check-health.sh
}

@test "another's server on a port of ours is named, whether ours were started or not" {
  rm scripts/backends/native.sh
  cp "$REPO/scripts/backends/native.sh" scripts/backends/
  "$REAL_PYTHON" -c 'import socket, time
s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1], flush=True); time.sleep(60)' >port 3>&- &
  listener=$!
  within 5 test -s port
  sed -i.bak "s/^ZENML_PORT=.*/ZENML_PORT=$(cat port)/" .env && rm .env.bak
  failing "ZENML_PORT $(cat port) is taken by pid $listener .*: set ZENML_PORT in .env"
  started
  failing "ZENML_PORT $(cat port) is taken by pid $listener .*: set ZENML_PORT in .env"
  kill "$listener"
}

@test "a full disk is found, whichever of the servers has it" {
  cat >>src/machine.py <<'PYTHON'
def free_disk(): return {"here": 5 * 10**9, ".stack/native/mlflow": 10**6}
PYTHON
  failing 'only 1 MB are free in .stack/native/mlflow: make room$'
  said 'ok    5000 MB are free in here'
}

@test "too few open files are found, and a new terminal has enough" {
  rm scripts/backends/native.sh
  cp "$REPO/scripts/backends/native.sh" scripts/backends/
  (
    ulimit -n 512
    failing '512 files may be open at once, and 1024 are needed: ulimit -n 1024; where that is refused, in a new terminal'
  )
  run -0 scripts/check-health.sh
}

@test "a clock that is wrong is found" {
  started
  stub_backend 'raise SystemExit(print("mlflow\thealthy\nzenml\tits clock says 8:00: set the clocks alike") or 1)'
  failing 'zenml: its clock says 8:00: set the clocks alike$'
}
