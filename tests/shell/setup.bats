# make setup: .venv and .env, made once, kept, and finished after an interruption.
# shellcheck disable=SC2016 # variables of the stubs

setup() {
  load helper
  make_checkout
  stub_python "$STUBS/python3" 3.12.1
  write_script "$STUBS/df" <<<'printf "Filesystem 1024-blocks Used Available\n/ 9 1 %s\n" "${FREE_KB:-9999999}"'
}

# A Python that makes .venv of copies of itself and records what is asked of pip; of the project's
# own code it leaves out what only takes time here.
# $1 the file, $2 its version
stub_python() {
  write_script "$1" <<SH
case "\$*" in
  '-c import sys'*) [ $2 != 3.9.2 ] ;;
  --version) echo Python $2 ;;
  '-m venv --clear '*)
    echo venv >>'$CALLS'
    rm -rf "\$4" && mkdir -p "\$4/bin" "\$4/lib/python3.12/site-packages" && cp "\$0" "\$4/bin/python"
    ;;
  '-m pip '*)
    echo "PIP_USER=\${PIP_USER:-} PIP_TARGET=\${PIP_TARGET:-} PIP_PREFIX=\${PIP_PREFIX:-} PIP_DRY_RUN=\${PIP_DRY_RUN:-}" >'$BATS_TEST_TMPDIR/pip environment'
    echo "pip \${*: -1}" | sed 's|^pip .*/.without-torch-|pip |' >>'$CALLS'
    [ -z "\${PIP_FAILS:-}" ]
    ;;
  '-m src.datasets --configure-only') mkdir -p .dvc && touch .dvc/config.local ;;
  *) exec '$REAL_PYTHON' "\$@" ;;
esac
SH
}

value_of() { sed -n "s/^$1=//p" .env; }

@test "the first run makes .venv and .env" {
  run -0 scripts/ensure-setup.sh
  called $'venv\npip requirements.txt'
  cmp requirements.txt .venv/.installed-requirements.txt
  is_private .env
}

@test "dev installs the tools of lint and test too" {
  run -0 scripts/ensure-setup.sh dev
  called $'venv\npip requirements.txt\npip requirements-dev.txt'
}

@test "every blank secret is filled, each differently" {
  run -0 scripts/ensure-setup.sh
  while IFS= read -r key; do
    value=$(value_of "$key")
    [ ${#value} -ge 32 ] || fail "$key is too short"
    not_said "$value"
    echo "$value" >>values
  done < <(sed -nE 's/^([A-Z0-9_]+(PASSWORD|KEY))=$/\1/p' .env.example)
  [ "$(wc -l <values)" -ge 9 ]
  [ -z "$(sort values | uniq -d)" ]
}

@test "the new .env is a valid one" {
  run -0 scripts/ensure-setup.sh
  run -0 "$REAL_PYTHON" -m src.services
}

@test "the second run changes nothing and says nothing" {
  run -0 scripts/ensure-setup.sh
  cp -p .env before
  : >"$CALLS"
  run -0 scripts/ensure-setup.sh
  [ -z "$output" ]
  called ''
  cmp .env before
  [ ! .env -nt before ]
}

@test "an existing .env keeps every line" {
  run -0 scripts/ensure-setup.sh
  sed -i.bak -e 's/^ZENML_PORT=.*/ZENML_PORT=8181/' -e '1s/.*/# my notes, with $ signs and \\ too/' .env
  cp .env before
  run -0 scripts/ensure-setup.sh
  cmp .env before
}

@test "an existing .env becomes private" {
  run -0 scripts/ensure-setup.sh
  chmod 644 .env
  run -0 scripts/ensure-setup.sh
  is_private .env
}

@test "an existing .env gains the settings that it lacks, with their comments" {
  run -0 scripts/ensure-setup.sh
  grep -vE '^(START_TIMEOUT|DVC_S3_SECRET_KEY)=|^# Seconds that' .env >old
  cp old .env
  run -0 scripts/ensure-setup.sh
  said 'added START_TIMEOUT DVC_S3_SECRET_KEY'
  head -n "$(wc -l <old)" .env | cmp - old
  grep -A 1 '^# Seconds that `make up` waits' .env | grep -qx START_TIMEOUT=180
  [ "$(value_of DVC_S3_SECRET_KEY | wc -c)" -ge 32 ]
  [ -z "$(grep -oE '^[A-Z0-9_]+=' .env | sort | uniq -d)" ]
}

@test "a .env without a newline at its end is extended properly" {
  run -0 scripts/ensure-setup.sh
  grep -v '^START_TIMEOUT=' .env >old
  printf %s "$(cat old)" >.env
  run -0 scripts/ensure-setup.sh
  run -0 "$REAL_PYTHON" -m src.services
  said START_TIMEOUT=180
}

@test "blank secrets of an existing .env are filled" {
  run -0 scripts/ensure-setup.sh
  sed -i.bak 's/^MINIO_ROOT_PASSWORD=.*/MINIO_ROOT_PASSWORD=/' .env
  run -0 scripts/ensure-setup.sh
  [ "$(value_of MINIO_ROOT_PASSWORD | wc -c)" -ge 32 ]
}

@test "a blank setting that is not a secret stays blank" {
  run -0 scripts/ensure-setup.sh
  sed -i.bak -E 's/^(WEIGHTS|DVC_S3_ACCESS_KEY)=.*/\1=/' .env
  run -0 scripts/ensure-setup.sh
  [ -z "$(value_of WEIGHTS)" ]
  [ -z "$(value_of DVC_S3_ACCESS_KEY)" ]
}

@test "a comment that looks like a blank secret stays a comment" {
  run -0 scripts/ensure-setup.sh
  echo '# once: OLD_PASSWORD=' >>.env
  run -0 scripts/ensure-setup.sh
  [ "$(tail -n 1 .env)" = '# once: OLD_PASSWORD=' ]
}

@test "an install that was interrupted is finished" {
  run -0 scripts/ensure-setup.sh
  rm .venv/.installed-requirements.txt
  : >"$CALLS"
  run -0 scripts/ensure-setup.sh
  called 'pip requirements.txt'
}

@test "what a killed pip left half installed is deleted, so that pip installs it" {
  run -0 scripts/ensure-setup.sh
  cd .venv/lib/python3.12/site-packages
  mkdir -p '~orch/lib' whole-1.dist-info half-1.dist-info barely-1.dist-info half
  touch '~orch/lib/large.so' whole-1.dist-info/INSTALLERw5msp8ip.tmp {half,barely}-1.dist-info/METADATA
  echo 'whole-1.dist-info/INSTALLER,sha256=x,4' >whole-1.dist-info/RECORD
  echo 'half.py,sha256=x,4' >half-1.dist-info/RECORD # as it came in the wheel
  rm "$OLDPWD/.venv/.installed-requirements.txt"
  cd "$OLDPWD"
  run -0 scripts/ensure-setup.sh
  [ "$(cd .venv/lib/python3.12/site-packages && find . -mindepth 1 | sort | tr '\n' ' ')" = \
    './half ./whole-1.dist-info ./whole-1.dist-info/RECORD ' ]
}

@test "a .venv that was interrupted is made again" {
  mkdir -p .venv/bin
  cp "$STUBS/python3" .venv/bin/python
  run -0 scripts/ensure-setup.sh
  called $'venv\npip requirements.txt'
}

@test "a note of .venv that was cut short is no note: .venv is made again" {
  write_script "$STUBS/od" <<<'kill -KILL 0'
  run -137 bash -c 'set -m; scripts/ensure-setup.sh & wait $!' # in a process group of its own
  [ ! -e .venv/.created ]
  rm "$STUBS/od"
  : >"$CALLS"
  run -0 scripts/ensure-setup.sh
  called $'venv\npip requirements.txt'
  [ -s .venv/.created ]
}

@test "a changed lock is installed" {
  run -0 scripts/ensure-setup.sh
  echo '# changed' >>requirements.txt
  : >"$CALLS"
  run -0 scripts/ensure-setup.sh
  called 'pip requirements.txt'
  cmp requirements.txt .venv/.installed-requirements.txt
}

@test "pip failing is an error, and tried again" {
  PIP_FAILS=1 run -1 scripts/ensure-setup.sh
  said 'make setup again'
  [ ! -e .venv/.installed-requirements.txt ]
  run -0 scripts/ensure-setup.sh
  called $'venv\npip requirements.txt\npip requirements.txt'
}

@test "pip failing on a changed lock forgets the old one" {
  run -0 scripts/ensure-setup.sh
  cp requirements.txt old
  echo '# changed' >>requirements.txt
  PIP_FAILS=1 run -1 scripts/ensure-setup.sh
  cp old requirements.txt
  : >"$CALLS"
  run -0 scripts/ensure-setup.sh
  called 'pip requirements.txt'
}

@test "Python too old is one line with the remedy" {
  for name in python3 python3.11 python3.12 python3.13; do stub_python "$STUBS/$name" 3.9.2; done
  run -1 scripts/ensure-setup.sh
  said '3.11' 'Python 3.9.2' 'make setup PYTHON='
  [ "${#lines[@]}" = 1 ]
  [ ! -e .venv ] && [ ! -e .env ]
}

@test "a newer Python beside one that is too old is found" {
  stub_python "$STUBS/python3" 3.9.2
  stub_python "$STUBS/python3.12" 3.12.1
  run -0 scripts/ensure-setup.sh
  said 'with Python 3.12.1'
}

@test "PYTHON names the Python, and no other is taken in its place" {
  stub_python "$BATS_TEST_TMPDIR/my python" 3.13.0
  PYTHON=$BATS_TEST_TMPDIR/my\ python run -0 scripts/ensure-setup.sh
  said 'with Python 3.13.0'
  rm -rf .venv
  PYTHON=/missing/python run -1 scripts/ensure-setup.sh
  said /missing/python
  [ ! -e .venv ]
}

@test "a folder that is not a Git checkout is refused with the remedy" {
  rm -rf .git
  GIT_CEILING_DIRECTORIES=$BATS_TEST_TMPDIR run -1 scripts/ensure-setup.sh
  said 'not a Git checkout' 'git init'
  [ ! -e .venv ] && [ ! -e .env ]
}

@test "a checkout that Git takes for somebody else's: its own advice mends it" {
  export GIT_TEST_ASSUME_DIFFERENT_OWNER=1
  run -1 scripts/ensure-setup.sh
  said "Git takes $CHECKOUT for somebody else's: git config --global --add safe.directory "
  bash -c "git ${output#*: git }"
  run -0 scripts/ensure-setup.sh
}

@test "a path that a library can't use is refused before anything is made" {
  for name in "the lab's" 'a:b' 'what?'; do
    make_checkout "$name"
    run -1 scripts/ensure-setup.sh
    said "$CHECKOUT: " 'move this checkout'
    [ ! -e .venv ] && [ ! -e .env ]
    mv "$CHECKOUT" "$BATS_TEST_TMPDIR/moved"
    (cd "$BATS_TEST_TMPDIR/moved" && scripts/ensure-setup.sh) || fail "the remedy does not help"
    rm -rf "$BATS_TEST_TMPDIR/moved"
  done
}

@test "pip installs into .venv, whatever is exported for another" {
  PIP_USER=1 PIP_TARGET=/elsewhere PIP_PREFIX=/elsewhere PIP_DRY_RUN=1 run -0 scripts/ensure-setup.sh
  [ "$(cat "$BATS_TEST_TMPDIR/pip environment")" = 'PIP_USER=0 PIP_TARGET= PIP_PREFIX= PIP_DRY_RUN=' ]
}

@test "too little room is said before anything is installed" {
  FREE_KB=1024 run -1 scripts/ensure-setup.sh
  said '1 MB are free'
  called venv
}

@test "what Docker mounts is finished after a kill" {
  write_script "$STUBS/docker" <<<:
  run -0 scripts/ensure-setup.sh
  [ -s .stack/docker/secrets/mysql-users.sql ]
  # Killed before the last file, the folder being newer than .env.
  rm .stack/docker/secrets/mysql-users.sql .stack/docker/secrets-written
  run -0 scripts/ensure-setup.sh
  [ -s .stack/docker/secrets/mysql-users.sql ]
}
