#!/usr/bin/env bash
# Make .venv from requirements.txt and .env from .env.example. A second run changes nothing; an
# interrupted one is finished.
# Usage: ensure-setup.sh [dev]     dev: the tools of `make lint` and `make test` too
# Variables: PYTHON (the interpreter for .venv), VENV (default .venv); the settings TORCH, TORCH_INDEX
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/secrets.sh"
. "$ROOT/scripts/lib/services.sh"
. "$ROOT/scripts/lib/tools.sh"

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
  local faults
  faults=$(tool_faults)
  [ -z "$faults" ] || die "$faults"
}

check_space() {
  local needed=$1 free
  free=$(df -Pk "$ROOT" | awk 'NR == 2 { print int($4 / 1024) }')
  [ "$free" -ge "$needed" ] || die "$free MB are free in $ROOT, $needed MB are needed: make room"
}

# A killed pip leaves what it was about to rename or delete, such as a PyTorch of gigabytes as ~orch.
# And it takes a package for installed whose METADATA are there, which in many wheels come first: last
# comes the RECORD that names INSTALLER.
delete_half_installed() {
  local packages info
  packages=$(echo "$VENV"/lib/python3*/site-packages)
  find "$packages" -maxdepth 2 \( -name '~*' -o -path '*.dist-info/*.tmp' \) -prune -exec rm -rf {} +
  for info in "$packages"/*.dist-info; do
    grep -qs '/INSTALLER,' "$info/RECORD" || rm -rf "$info"
  done
}

# pip install with the arguments after $1, the number of packages. Of what pip says it passes on how far
# it is, large downloads, retries and errors.
pip_install() {
  local all=$1
  shift
  delete_half_installed
  # What is exported, or stands in pip's configuration, would install elsewhere, or nothing.
  unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_DRY_RUN PIP_REPORT
  PIP_USER=0 "$PYTHON_BIN" -m pip install --disable-pip-version-check --progress-bar off "$@" 2>&1 | awk -v all="$all" '
    /^ *(ERROR|error|Traceback)/ { failed = 1 }
    failed || /^WARNING: Retrying/ { print }
    /^Collecting / && ++count % 50 == 0 { print "  " count " of " all }
    /^ *Downloading .*([5-9][0-9]|[0-9][0-9][0-9])(\.[0-9]+)? MB\)/ { print "  " $2, $3, $4 }
    /^Installing collected / { print "  unpacking" }
    { fflush() }' >&2
}

# $1: the lock. A copy in .venv, written last, says that this very lock was installed completely.
# PyTorch, which comes in builds of very different sizes, is left to install_torch.
install_lock() {
  local lock=$1 stamp=$VENV/.installed-${1##*/} rest=$VENV/.without-torch-${1##*/} hashes=''
  if cmp -s "$ROOT/$lock" "$stamp"; then return; fi
  take_lock environment "make setup"
  if cmp -s "$ROOT/$lock" "$stamp"; then return; fi # another make has just done it
  # pip replaces files under what runs: nothing may train meanwhile; make up restarts the servers.
  [ ! -f "$STATE/backend" ] || take_lock stack "make setup" --now
  check_space 3000
  awk '/^[^ #]/ { torch = /^torch(vision)?==/ } !torch' "$ROOT/$lock" >"$rest"
  ! grep -q -- --hash= "$rest" || hashes=--require-hashes
  say "installing $(grep -c == "$rest") packages of $lock into ${VENV#"$ROOT"/} (a minute or two the first time)"
  rm -f "$stamp"
  pip_install "$(grep -c == "$rest")" --no-deps $hashes -r "$rest" ||
    die "pip could not install $lock (see above): mend the cause and run make setup again"
  cp "$ROOT/$lock" "$stamp"
}

# A setting, before there is a Python that could read .env properly.
early_setting() {
  local value=${!1:-}
  [ -n "$value" ] || [ ! -f "$ROOT/.env" ] || value=$(sed -n "s/^$1=//p" "$ROOT/.env" | tail -n 1)
  [ -n "$value" ] || value=$(sed -n "s/^$1=//p" "$ROOT/.env.example")
  printf '%s' "$value"
}

has_nvidia_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; }

# Which build of PyTorch suits: cpu from TORCH_INDEX, or PyPI's (on Linux with CUDA, on a Mac without).
suitable_torch() {
  case $(early_setting TORCH) in
    cpu) echo cpu ;;
    cuda) echo pypi ;;
    auto) if [ "$(uname)" = Linux ] && ! has_nvidia_gpu; then echo cpu; else echo pypi; fi ;;
    *) die "TORCH=$(early_setting TORCH): choose auto, cpu or cuda" ;;
  esac
}

# Let pip see TORCH_INDEX alone: the user's other indexes would offer the CUDA build under the same
# version.
from_torch_index() (
  unset PIP_EXTRA_INDEX_URL PIP_FIND_LINKS
  export PIP_CONFIG_FILE=/dev/null
  PIP_INDEX_URL=$(early_setting TORCH_INDEX)
  export PIP_INDEX_URL
  "$@"
)

# Whether TORCH_INDEX answers and has the version ($1). Asked first, since pip would try for minutes
# to reach an address that does not answer.
index_has_torch() {
  local found
  found=$(from_torch_index "$PYTHON_BIN" -m pip index versions torch \
    --disable-pip-version-check --timeout 5 --retries 0 2>/dev/null) || return 1
  [[ $found == *"$1"* ]]
}

# The CUDA libraries are of no use to a CPU build, and take 5 GB.
remove_cuda() {
  local names
  names=$("$PYTHON_BIN" -m pip list --disable-pip-version-check --format=freeze 2>/dev/null |
    sed -nE 's/^((nvidia-|cuda-|triton)[^=]*)==.*/\1/p' | grep -vx nvidia-ml-py) || return 0
  # shellcheck disable=SC2086 # one word for each
  "$PYTHON_BIN" -m pip uninstall -qq -y $names
}

# What an earlier version of this script has installed, as install_torch notes it; else nothing.
adopt_torch() {
  "$PYTHON_BIN" - "$1" <<'PY'
import importlib.metadata, sys

wanted = dict(pin.split("==") for pin in sys.argv[1].split())
try:
    found = {name: importlib.metadata.version(name) for name in wanted}
except importlib.metadata.PackageNotFoundError:
    sys.exit()
if all(found[name].partition("+")[0] == wanted[name] for name in wanted):
    print(sys.argv[1] + ("cpu" if "+cpu" in found["torch"] else "pypi"), end="")
PY
}

# Install the build of PyTorch that TORCH asks for. `auto` keeps what is there.
install_torch() {
  local stamp=$VENV/.installed-torch versions build have
  versions=$(grep -oE '^torch(vision)?==[^ ;]+' "$ROOT/requirements.txt" | tr '\n' ' ')
  build=$(suitable_torch) || exit 1
  [ -f "$stamp" ] || adopt_torch "$versions" >"$stamp"
  have=$(cat "$stamp")
  if [ "$have" = "$versions$build" ]; then return; fi
  if [ "$(early_setting TORCH)" = auto ] && [ "${have% *} " = "$versions" ]; then return; fi
  take_lock environment "make setup"
  if [ "$(cat "$stamp")" = "$versions$build" ]; then return; fi # another make has just done it
  [ ! -f "$STATE/backend" ] || take_lock stack "make setup" --now
  : >"$stamp"
  if [ "$build" = cpu ]; then
    if index_has_torch "$(cut -d' ' -f1 <<<"${versions#torch==}")"; then
      say "installing PyTorch's CPU build (200 MB, without hashes; TORCH=cuda chooses the other)"
      # shellcheck disable=SC2086 # one word for each
      from_torch_index pip_install 2 --no-deps --force-reinstall $versions ||
        die "pip could not install PyTorch (see above): mend the cause and run make setup again"
      remove_cuda
    elif [ "$(early_setting TORCH)" = auto ]; then
      warn "$(early_setting TORCH_INDEX) can't be reached, or lacks ${versions% }:" \
        "PyPI's build is taken, which brings 5 GB of CUDA; make setup TORCH=cpu tries again"
      build=pypi
    else
      die "$(early_setting TORCH_INDEX) can't be reached, or lacks ${versions% }: set TORCH_INDEX to an index that has them, or TORCH=cuda"
    fi
  fi
  if [ "$build" = pypi ]; then
    [ "$(uname)" != Linux ] || check_space 6000
    say "installing PyTorch from PyPI (without hashes$([ "$(uname)" != Linux ] || printf ', 5 GB with CUDA, some minutes'))"
    # shellcheck disable=SC2086 # one word for each
    { pip_install 2 --no-deps --force-reinstall $versions && pip_install 20 $versions; } ||
      die "pip could not install PyTorch (see above): mend the cause and run make setup again"
  fi
  printf '%s%s' "$versions" "$build" >"$stamp"
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
  python=$(find_python) || exit 1
  take_lock environment "make setup"
  if [ -x "$PYTHON_BIN" ] && [ -f "$VENV/.created" ]; then return; fi # another make has just made it
  say "creating ${VENV#"$ROOT"/} with $("$python" --version 2>&1)"
  "$python" -m venv --clear "$VENV" || die "$python can't make a virtual environment: on Debian, install python3-venv"
  random_secret | ensure_file "$VENV/.created" 600 # so that servers of a replaced one are known
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
  local written=$STATE/docker/secrets-written
  if ! command -v docker >/dev/null || [ "$written" -nt "$ROOT/.env" ]; then return; fi
  load_settings
  write_docker_secrets
  touch "$written"
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
  install_torch
  [ "${1:-}" != dev ] || install_lock requirements-dev.txt
  ensure_bulk_deletion
  ensure_env_file
  ensure_private_folder "$STATE"
  chmod 700 "$STATE"
  ensure_dvc_config
  ensure_docker_secrets
}

main "$@"
