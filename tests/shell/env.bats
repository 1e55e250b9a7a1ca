# lib/env.sh: the settings in the shell, and one script at a time.
# shellcheck disable=SC2016,SC2030,SC2031 # variables of the scripts under test; each test is a subshell

setup() {
  load helper
  make_checkout
  set_up
  mkdir -p .stack
}

teardown() {
  local pid
  for pid in $(jobs -p); do kill "$pid" 2>/dev/null || continue; done
}

# Take the lock in the background, then run $1; what it says goes to the file `told`.
take_lock_and() {
  bash -c "$(library_script env "take_lock services \"make it\"; $1")" 2>>told 3>&- &
  TAKER=$!
}

# Let a script hold the lock until it is ended.
hold_lock() {
  take_lock_and 'touch held; exec sleep 60'
  HOLDER=$TAKER
  within 5 test -e held
}

@test "every setting and address becomes a variable" {
  run -0 with_libraries env 'load_settings; echo "$ZENML_PORT|$MLFLOW_BUCKET|$URL_object_store|$LOOPBACK"'
  [ "$output" = '8080|mlflow-artifacts|http://localhost:9000|true' ]
}

@test "the environment wins over .env" {
  sed -i.bak 's/^ZENML_PORT=.*/ZENML_PORT=8181/' .env
  run -0 with_libraries env 'load_settings; echo $URL_zenml'
  [ "$output" = http://localhost:8181 ]
  ZENML_PORT=8282 run -0 with_libraries env 'load_settings; echo $URL_zenml'
  [ "$output" = http://localhost:8282 ]
}

@test "a checkout that is reached through a link is the same one" {
  ln -s "$CHECKOUT" "$BATS_TEST_TMPDIR/a link"
  cd "$BATS_TEST_TMPDIR/a link"
  for asked in 'echo "$ROOT"' 'load_settings; echo "$CHECKOUT"' 'echo "$COMPOSE_PROJECT"'; do
    there=$(with_libraries env "$asked")
    [ "$there" = "$(cd "$CHECKOUT" && with_libraries env "$asked")" ] || fail "$asked differs"
  done
  [ "$(with_libraries env 'echo "$ROOT"')" = "$(.venv/bin/python -c 'from src.settings import ROOT; print(ROOT)')" ]
}

@test "what would lead Python, Git and cd elsewhere does not" {
  mkdir -p elsewhere/pydantic elsewhere/scripts/lib
  echo 'raise SystemExit("the wrong one")' | tee elsewhere/pydantic/__init__.py elsewhere/requests.py >elsewhere/psutil.py
  export PYTHONPATH=$PWD/elsewhere PYTHONSAFEPATH=1 PYTHONWARNINGS=error PYTHONOPTIMIZE=2 GIT_DIR=/nowhere CDPATH=$PWD/elsewhere
  run -0 with_libraries env 'load_settings; git rev-parse --git-dir; echo "$ROOT"'
  [ "$output" = $'.git\n'"$CHECKOUT" ]
}

@test "a name of ours that means something else in the environment is said to come from there" {
  MODE=production MLFLOW_PORT=tcp://10.0.0.1:5000 run -1 with_libraries env load_settings
  said 'MODE from the environment: ' ': unset MODE, or give it another value' 'MLFLOW_PORT from the environment: ' ': unset MLFLOW_PORT'
  [ "${#lines[@]}" = 2 ]
  DEBUG='app:*' run -1 with_libraries env load_settings
  [ "$output" = 'error: DEBUG=app:*: 1 for yes, 0 for no; if it was exported for something else: unset DEBUG' ]
}

@test "every fault is a line, and the script ends" {
  sed -i.bak -e 's/^ZENML_PORT=.*/ZENML_PORT=http/' -e 's/^DATASET=.*/DATASET=cats/' .env
  run -1 with_libraries env 'load_settings; echo went on'
  said ZENML_PORT DATASET
  [ "${#lines[@]}" = 2 ]
}

@test "a checkout that is not set up says so" {
  rm .env
  run -1 with_libraries env 'load_settings; echo went on'
  [ "$output" = 'error: this checkout is not set up: run make setup' ]
}

@test "private folders are nobody else's" {
  run -0 with_libraries env 'ensure_private_folder "one two/three"'
  [ -n "$(find 'one two' -prune -perm 700)" ]
  [ -n "$(find 'one two/three' -prune -perm 700)" ]
}

@test "a lock whose owner lives is waited for, and said so once" {
  mkdir -p .stack
  hold_lock
  take_lock_and 'touch taken'
  within 5 grep -q "waiting for make it (pid $HOLDER)" told
  [ ! -e taken ]
  kill "$HOLDER"
  within 5 test -e taken
  [ "$(grep -c waiting told)" = 1 ]
}

@test "a lock goes with its owner, however that ends" {
  hold_lock
  kill -9 "$HOLDER"
  run -0 with_libraries env 'take_lock services "make it"; echo taken'
  [ "$output" = taken ]
  run -1 with_libraries env 'take_lock services "make it"; die "no good"'
  run -0 with_libraries env 'take_lock services "make it"; echo taken'
  [ "$output" = taken ]
}

@test "who does not wait is refused, and told who is at work" {
  mkdir -p .stack
  hold_lock
  run -1 with_libraries env 'take_lock services "make down" --now'
  [ "$output" = "error: make it (pid $HOLDER) is at work: let it end, or end it, then the same command again" ]
}

@test "who shares a lock waits for nobody who shares it too" {
  mkdir -p .stack
  bash -c "$(library_script env 'take_lock stack "make grid" --shared; touch held; exec sleep 60')" 3>&- &
  HOLDER=$!
  within 5 test -e held
  run -0 with_libraries env 'take_lock stack "make baseline" --shared --now; take_lock services "make up" --now'
  run -1 with_libraries env 'take_lock stack "make down" --now'
  said "make grid (pid $HOLDER)"
}

@test "scripts that start together take turns" {
  for _ in 1 2 3 4 5; do
    take_lock_and 'mkdir busy && sleep 0.05 && rmdir busy && echo turn >>turns'
  done
  all_had_their_turn() { [ "$(cat turns 2>/dev/null | wc -l)" -eq 5 ]; }
  within 20 all_had_their_turn
}

@test "the lock leaves no file and outlives make clean" {
  hold_lock
  rm -rf .stack
  take_lock_and 'touch taken'
  within 5 grep -q waiting told
  kill "$HOLDER"
  within 5 test -e taken
  [ ! -e .stack ]
}

@test "what a Mac allows of open files at first is raised, and not beyond what is allowed" {
  run -0 bash -c 'ulimit -Sn 256; . scripts/lib/env.sh; ulimit -Sn; descriptor_faults'
  [ "$output" = 1024 ]
  run -0 bash -c 'ulimit -n 512; . scripts/lib/env.sh; ulimit -Sn; descriptor_faults'
  [ "${lines[0]}" = 512 ]
  said '512 files may be open at once, and 1024 are needed: ulimit -n 1024'
}
