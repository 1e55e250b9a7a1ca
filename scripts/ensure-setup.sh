#!/usr/bin/env bash
# Make .venv from requirements.txt and .env from .env.example. A second run changes nothing; an
# interrupted one is finished.
# Usage: ensure-setup.sh [dev]     dev: the tools of `make lint` and `make test` too
# Variables: PYTHON (the interpreter for .venv), VENV (default .venv)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/secrets.sh"
. "$ROOT/scripts/lib/services.sh"

python_suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.12 python3.13 python3.11; do
    if command -v "$candidate" >/dev/null && python_suits "$candidate"; then
      command -v "$candidate"
      return
    fi
    [ -z "${PYTHON:-}" ] || break
  done
  die "Python 3.11, 3.12 or 3.13 is needed (${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1)):" \
    "install one, or name it: make setup PYTHON=/path/to/python3.12"
}

check_tools() {
  local tool missing=''
  for tool in git awk cmp; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
  done
  [ -z "$missing" ] || die "not found:$missing: install with your package manager"
  git -C "$ROOT" rev-parse --git-dir >/dev/null 2>&1 ||
    die "$ROOT is no Git checkout, which DVC needs: clone the repository, or run git init"
}

check_space() {
  local needed=$1 free
  free=$(df -Pk "$ROOT" | awk 'NR == 2 { print int($4 / 1024) }')
  [ "$free" -ge "$needed" ] || die "$free MB are free in $ROOT, $needed MB are needed: make room"
}

# $1: the lock. A copy in .venv, written last, says that this very lock was installed completely.
install_lock() {
  local lock=$1 stamp=$VENV/.installed-${1##*/}
  if cmp -s "$ROOT/$lock" "$stamp"; then return; fi
  take_lock environment "make setup"
  if cmp -s "$ROOT/$lock" "$stamp"; then return; fi # another make has just done it
  # pip replaces files under what runs: nothing may train meanwhile; make up restarts the servers.
  [ ! -f "$STATE/backend" ] || take_lock stack "make setup" --now
  check_space 3000
  say "installing $lock into ${VENV#"$ROOT"/} (some minutes the first time)"
  rm -f "$stamp"
  "$PYTHON_BIN" -m pip install -qq --disable-pip-version-check -r "$ROOT/$lock" ||
    die "pip could not install $lock (see above): mend the cause and run make setup again"
  cp "$ROOT/$lock" "$stamp"
}

# Every Python of .venv deletes in bulk where the store refuses to: see src/bulk_deletion.py.
ensure_bulk_deletion() {
  local installed
  installed=$(ls "$VENV"/lib/python3*/site-packages/zenml_cv_yolo_bulk_deletion.py 2>/dev/null) || :
  cmp -s "$ROOT/src/bulk_deletion.py" "$installed" || "$PYTHON_BIN" "$ROOT/src/bulk_deletion.py"
}

ensure_venv() {
  local python
  if [ -x "$PYTHON_BIN" ] && python_suits "$PYTHON_BIN" && [ -f "$VENV/.created" ]; then return; fi
  python=$(find_python)
  take_lock environment "make setup"
  if [ -x "$PYTHON_BIN" ] && [ -f "$VENV/.created" ]; then return; fi # another make has just made it
  say "creating ${VENV#"$ROOT"/} with $("$python" --version 2>&1)"
  "$python" -m venv --clear "$VENV" || die "$python can't make a virtual environment: on Debian, install python3-venv"
  random_secret >"$VENV/.created" # so that servers of a replaced one are known
}

# Keep every value of .env, fill blank secrets, append the settings that it lacks.
ensure_env_file() {
  local line key old='' new added='' comment=''
  [ ! -f "$ROOT/.env" ] || old=$(cat "$ROOT/.env")
  if [ -z "$old" ]; then
    new=$(fill_secrets <"$ROOT/.env.example")
  else
    new=$(fill_secrets <<<"$old")
    while IFS= read -r line; do
      case $line in
        '#'*) comment="$comment$line"$'\n' && continue ;;
        [A-Z]*=*) key=${line%%=*} ;;
        *) comment='' && continue ;;
      esac
      if ! grep -q "^$key=" <<<"$old"; then
        new="$new"$'\n'"$comment$(fill_secrets <<<"$line")"
        added="$added $key"
      fi
      comment=''
    done <"$ROOT/.env.example"
  fi
  if [ "$new" != "$old" ]; then
    if ! holds environment; then
      take_lock environment "make setup"
      ensure_env_file # another make may have just done it, with other secrets
      return
    fi
    ensure_file "$ROOT/.env" 600 <<<"$new"
    if [ -z "$old" ]; then
      say ".env: created, with random secrets"
    elif [ -n "$added" ]; then
      say ".env: added$added"
    fi
  fi
  chmod 600 "$ROOT/.env"
}

# The files that `docker compose up` by itself mounts; `make up` keeps them in line with .env too.
ensure_docker_secrets() {
  local folder=$STATE/docker/secrets
  if ! command -v docker >/dev/null || [ "$folder" -nt "$ROOT/.env" ]; then return; fi
  load_settings
  write_docker_secrets
  touch "$folder"
}

fill_secrets() {
  local line
  while IFS= read -r line; do
    case $line in
      COMPOSE_PROJECT_NAME=*)
        case ${line#*=} in
          '' | "$COMPOSE_PROJECT") ;;
          *) warn "this checkout was moved or copied: what ${line#*=} holds in Docker stays with its old place" ;;
        esac
        printf 'COMPOSE_PROJECT_NAME=%s\n' "$COMPOSE_PROJECT"
        ;;
      '#'* | *_ACCESS_KEY=) printf '%s\n' "$line" ;;
      *_PASSWORD= | *_KEY=) printf '%s%s\n' "$line" "$(random_secret)" ;;
      *) printf '%s\n' "$line" ;;
    esac
  done
}

# DVC's remote and keys, so that `dvc pull` works in a clone whose services run elsewhere.
ensure_dvc_config() {
  local config=$ROOT/.dvc/config.local
  if [ "$config" -nt "$ROOT/.env" ]; then return; fi
  "$PYTHON_BIN" -m src.datasets --configure-only || exit 1
  touch "$config"
}

main() {
  check_tools
  ensure_venv
  install_lock requirements.txt
  [ "${1:-}" != dev ] || install_lock requirements-dev.txt
  ensure_bulk_deletion
  ensure_private_folder "$STATE"
  chmod 700 "$STATE"
  ensure_env_file
  ensure_dvc_config
  ensure_docker_secrets
}

main "$@"
