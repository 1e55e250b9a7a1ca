# make clean: asks first, deletes what the project made, keeps what is the person's own.

setup() {
  load helper
  make_checkout
  set_up
  mkdir -p .stack/native/logs data/tiny_person/images data/.tiny_person.abc .dvc/cache/files .dvc/tmp runs reports data/mine notes
  touch data/tiny_person/images/a.jpg data/tiny_person.dvc .dvc/cache/files/a .dvc/config.local .dvc/config
  touch reports/decision.md data/mine/photo.jpg notes/todo 'my notes' .venv/.created
}

# Answer the question as on a terminal.
clean_answering() {
  "$REAL_PYTHON" -c 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)' scripts/clean-checkout.sh <<<"$1"
}

kept() {
  local path
  for path; do [ -e "$path" ] || fail "$path is gone"; done
}

gone() {
  local path
  for path; do [ ! -e "$path" ] || fail "$path is still there"; done
}

@test "without a terminal it refuses and deletes nothing" {
  before=$(contents)
  run -1 scripts/clean-checkout.sh </dev/null
  said 'nothing deleted' FORCE=1
  [ "$(contents)" = "$before" ]
}

@test "another answer than the asked one deletes nothing" {
  before=$(contents)
  run -1 clean_answering yes
  said 'nothing deleted'
  [ "$(contents)" = "$before" ]
}

@test "the asked answer deletes" {
  run -0 clean_answering clean
  gone .stack data/tiny_person
}

@test "FORCE=1 deletes what the project made" {
  FORCE=1 run -0 scripts/clean-checkout.sh </dev/null
  gone .stack data/tiny_person data/tiny_person.dvc data/.tiny_person.abc .dvc/cache .dvc/tmp .dvc/config.local
}

@test "it keeps settings, .venv, reports and the person's own files, and says so" {
  FORCE=1 run -0 scripts/clean-checkout.sh
  kept .env .venv/.created .dvc/config reports/decision.md data/mine/photo.jpg notes/todo 'my notes' src/settings.py
  said .env .venv reports/ 'your own files'
}

@test "a committed pointer is kept" {
  git add data/tiny_person.dvc
  FORCE=1 run -0 scripts/clean-checkout.sh
  kept data/tiny_person.dvc
  gone data/tiny_person
  said 'data/tiny_person.dvc: kept'
}

@test "the cache is kept where other DVC files may need it" {
  touch 'notes/my photos.dvc'
  FORCE=1 run -0 scripts/clean-checkout.sh
  kept .dvc/cache/files/a
  said '.dvc/cache: kept'
}

@test "the second run deletes nothing and does not ask" {
  FORCE=1 run -0 scripts/clean-checkout.sh
  before=$(contents)
  run -0 scripts/clean-checkout.sh </dev/null
  [ "$output" = 'nothing to delete' ]
  [ "$(contents)" = "$before" ]
}

@test "the services are destroyed first" {
  stub_backend
  echo native >.stack/backend
  FORCE=1 run -0 scripts/clean-checkout.sh
  called destroy
}

@test "data of a backend that MODE does not name is destroyed too" {
  stub_backend
  MODE=docker FORCE=1 run -0 scripts/clean-checkout.sh
  called destroy
  gone .stack
}

@test "imported data sets and their versions stay" {
  mkdir -p data/cats/images data/.cats.xyz
  touch data/cats/images/a.jpg
  printf 'outs:\n- md5: 0123abcd.dir\n  path: cats\n' >data/cats.dvc
  FORCE=1 run -0 scripts/clean-checkout.sh
  kept data/cats/images/a.jpg data/cats.dvc .dvc/cache/files/a
  gone .stack data/tiny_person data/.cats.xyz
  said 'imported data sets'
}

@test "it names each imported set that it keeps, and the command to delete it works" {
  mkdir -p data/cats/images data/dogs-2/images
  touch data/cats.dvc data/dogs-2.dvc
  FORCE=1 run -0 scripts/clean-checkout.sh
  said 'data/cats: kept' 'data/dogs-2: kept'
  command=$(sed -n 's/^data\/cats: kept; to delete it: //p' <<<"$output")
  bash -c "$command"
  gone data/cats data/cats.dvc
  kept data/dogs-2/images data/dogs-2.dvc
}

@test "it names the sets that stay before it asks, too" {
  mkdir -p data/cats
  touch data/cats.dvc
  run -1 clean_answering no
  said 'data/cats: kept; to delete it: rm -rf data/cats data/cats.dvc'
}

@test "a version that only the store holds keeps the store, FORCE=1 or not" {
  printf 'outs:\n- md5: 0123abcd.dir\n  path: cats\n' >data/cats.dvc
  before=$(contents)
  FORCE=1 run -1 scripts/clean-checkout.sh
  said data/cats.dvc 'make data NAME=cats' 'nothing deleted'
  [ "$(contents)" = "$before" ]
  mkdir -p .dvc/cache/files/md5/01
  touch .dvc/cache/files/md5/01/23abcd.dir
  FORCE=1 run -0 scripts/clean-checkout.sh
  kept data/cats.dvc .dvc/cache/files/md5/01/23abcd.dir
}
