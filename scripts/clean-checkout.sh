#!/usr/bin/env bash
# Delete what this project made here: services, their data, runs, the lab's data set. Asks first.
# Data sets that were imported stay, with DVC's cache of their versions.
# Usage: clean-checkout.sh
# Variables: FORCE=1 (don't ask)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/services.sh"

confirm() {
  local answer=''
  say "This deletes the servers' data (ZenML and MLflow runs, every bucket) and data/tiny_person."
  say ".env, .venv, reports/, predictions/, exports/, data sets that you imported and your own files stay."
  list_imported
  [ -t 0 ] || die "nothing deleted: confirm on a terminal, or run make clean FORCE=1"
  read -r -p "Type clean to go on: " answer
  [ "$answer" = clean ] || die "nothing deleted"
}

# Name the imported sets that stay, each with how to delete it.
list_imported() {
  local name
  for name in $(imported_sets); do
    say "data/$name: kept; to delete it: rm -rf data/$name data/$name.dvc"
  done
}

# The sets beside the lab's that have a pointer: their names are a-z 0-9 _ - (src/datasets/sets.py).
imported_sets() {
  local pointer
  for pointer in data/*.dvc; do
    [ ! -f "$pointer" ] || [ "$pointer" = data/tiny_person.dvc ] || basename "$pointer" .dvc
  done
}

# A version that neither the working copy nor the cache holds would go with the store.
require_copies() {
  local pointer name md5 lost=0
  for name in $(imported_sets); do
    pointer=data/$name.dvc
    [ ! -d "data/$name" ] || continue
    md5=$(sed -n 's/^- md5: *//p' "$pointer")
    [ ! -f ".dvc/cache/files/md5/${md5:0:2}/${md5:2}" ] || continue
    error "$pointer names a version that only the store holds, which would be deleted: bring it here first (make data NAME=$name), or delete $pointer"
    lost=1
  done
  [ "$lost" = 0 ] || die "nothing deleted"
}

# A pointer that is committed is the person's own, and so is the cache once it may hold more.
remove_dataset() {
  local pointer=data/tiny_person.dvc
  rm -rf data/tiny_person
  rm -f reports/data/tiny_person-*.html # the pages of its versions
  find data -mindepth 1 -maxdepth 1 -type d -name '.*' -exec rm -rf {} +
  if git ls-files --error-unmatch "$pointer" >/dev/null 2>&1; then
    say "$pointer: kept (it is committed)"
  else
    rm -f "$pointer"
  fi
  rm -rf .dvc/tmp .dvc/config.local .dvc/.config.local.*.new
  if [ -n "$(find . -path ./.venv -prune -o -path ./.stack -prune -o \( -name '*.dvc' -type f -o -name dvc.yaml \) ! -path "./$pointer" -print | head -n 1)" ]; then
    say ".dvc/cache: kept (other DVC files of yours may need it)"
  else
    rm -rf .dvc/cache
  fi
}

main() {
  local backend
  if [ -z "$(ls -d "$STATE" data/tiny_person .dvc/cache .dvc/tmp .dvc/config.local 2>/dev/null)" ]; then
    say "nothing to delete"
    return
  fi
  require_copies
  [ "${FORCE:-}" = 1 ] || confirm
  [ ! -d "$STATE/ray" ] || "$ROOT/scripts/stop-ray-node.sh"
  load_settings
  take_lock stack "make clean" --now
  take_lock services "make clean"
  for backend in "$ROOT"/scripts/backends/*.sh; do
    backend=$(basename "$backend" .sh)
    [ -d "$STATE/$backend" ] || continue
    MODE=$backend
    rm -f "$STATE/backend"
    choose_backend
    backend_destroy
  done
  remove_dataset
  rm -rf "$STATE"
  [ "${FORCE:-}" != 1 ] || list_imported # else it was said before the question
  say "deleted: the services' data, runs and data set; kept: .env, .venv, reports/, imported data sets, your own files"
}

main "$@"
