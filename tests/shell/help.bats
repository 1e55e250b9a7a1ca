# make help, and the front door as a whole.

setup() {
  load helper
  make_checkout
}

targets() { sed -nE 's/^([a-z-]+):.*## .*/\1/p' Makefile; }

@test "every target is listed with its line" {
  run -0 make help
  [ "$(targets | wc -l)" -ge 15 ]
  for target in $(targets); do
    text=$(sed -nE "s/^$target:.*## (.*)/\1/p" Makefile | sed -E 's/ \[[A-Z0-9_ ]+\]$//; s/\$\$/$/g')
    text=$(fold -s -w 60 <<<"$text" | head -n 1)
    grep -qE "^  $target +" <<<"$output" || fail "$target is not listed"
    said "$text"
  done
}

@test "the sections are listed" {
  run -0 make help
  while IFS= read -r section; do
    grep -qx "$section" <<<"$output" || fail "$section is not listed"
  done < <(sed -n 's/^##@ //p' Makefile)
}

@test "make alone is make help" {
  help=$(make help)
  run -0 make
  [ "$output" = "$help" ]
}

@test "no colours but on a terminal" {
  run -0 make help
  not_said $'\033'
}

@test "every target is phony and has a line of help" {
  phony=$(sed -n 's/^\.PHONY: //p' Makefile | tr ' ' '\n' | sort)
  diff <(echo "$phony") <(targets | sort)
}

@test "every script that make calls is there" {
  while IFS= read -r script; do
    [ -x "$script" ] || fail "$script is missing or not executable"
  done < <(grep -oE 'scripts/[a-z-]+\.sh' Makefile | sort -u)
}

@test "scripts run in a clone that Git for Windows made" {
  cp "$REPO/.gitattributes" .
  git add Makefile scripts .gitattributes .env.example
  git -c user.name=a -c user.email=a@b commit -qm one
  git -c core.autocrlf=true clone -q "$CHECKOUT" "$BATS_TEST_TMPDIR/clone"
  cd "$BATS_TEST_TMPDIR/clone"
  ! grep -rlI $'\r' Makefile scripts .env.example || fail "these end their lines as Windows does"
  run -0 make help
}

@test "make works from another folder" {
  cd /
  run -0 make -C "$CHECKOUT"
  said baseline
}

@test "a mistyped variable is refused, a setting and a sentence are not" {
  run -2 make help EPOCH=50
  said 'reads no EPOCH'
  run -0 make -n promote ZENML_PORT=8181 REASON='it is = better'
}

# shellcheck disable=SC2016 # the stub expands it
@test "FORCE and RAY_ADDRESS count behind the target only, and make says so" {
  write_script scripts/clean-checkout.sh <<'SH'
echo "FORCE=${FORCE:-}" "RAY_ADDRESS=${RAY_ADDRESS:-}"
SH
  FORCE=1 RAY_ADDRESS=cluster:6379 run -0 make clean
  [ "${lines[0]}" = 'FORCE RAY_ADDRESS from the environment: left aside; write it behind the target where it is meant' ]
  [ "${lines[1]}" = 'FORCE= RAY_ADDRESS=' ]
  FORCE=1 run -0 make clean FORCE=1
  [ "$output" = 'FORCE=1 RAY_ADDRESS=' ]
  FORCE='' run -0 make clean
  [ "$output" = 'FORCE= RAY_ADDRESS=' ]
}

@test "a variable is refused where it is not read" {
  run -2 make -n baseline RAY_ADDRESS=127.0.0.1:6379
  said 'baseline reads no RAY_ADDRESS'
  run -2 make report EPOCHS=3
  run -0 make -n grid RAY_ADDRESS=127.0.0.1:6379
  run -0 make -n baseline grid JOBS=2 EPOCHS=3
}

@test "every variable stands beside its targets, and fits 80 columns" {
  run -0 make help
  for variable in EPOCHS GRID JOBS RUN REASON SOURCE SERVICE FIX ONLY RAY_ADDRESS UV; do
    grep -qE "^ {15,}.*\b$variable\b" <<<"$output" || fail "$variable is not listed"
  done
  for line in "${lines[@]}"; do [ "${#line}" -le 80 ] || fail "too long: $line"; done
}

@test "0 means no and 1 means yes; what is neither is refused" {
  for switch in FORCE FOLLOW FIX; do
    for value in 0 no ''; do
      run -0 env "$switch=$value" bash -c "$(library_script env "echo \"\${$switch-unset}\"")"
      [ "$output" = unset ]
    done
    run -0 env "$switch=1" bash -c "$(library_script env "echo \"\${$switch-unset}\"")"
    [ "$output" = 1 ]
    run -1 env "$switch=maybe" bash -c "$(library_script env :)"
    said "$switch=maybe: 1 for yes, 0 for no"
  done
}

@test "a script that fails unexpectedly says where" {
  write_script scripts/fails.sh <<'SH'
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
main() {
  ls /missing-folder
}
main
SH
  run scripts/fails.sh
  [ "$status" != 0 ]
  said 'scripts/fails.sh:5: ended with status 2: ls /missing-folder'
}

@test "the locks are compiled without installing the project" {
  run -0 make -n lock
  [ "$output" = scripts/compile-requirements.sh ]
}

@test "completion offers targets and variables, in this checkout only" {
  eval "$(scripts/print-completion.sh)"
  complete_word() {
    COMP_WORDS=(make "$1") COMP_CWORD=1 COMPREPLY=()
    _zenml_cv_yolo
  }
  complete_word base
  [ "${COMPREPLY[*]}" = baseline ]
  complete_word EPO
  [ "${COMPREPLY[*]}" = EPOCHS= ]
  complete_word ZENML_PO
  [ "${COMPREPLY[*]}" = ZENML_PORT= ]
  cd /
  complete_word base
  [ "${#COMPREPLY[@]}" = 0 ]
}

@test "a page is printed where no browser can be opened, and opened where one can" {
  set_up
  stub_backend
  run -1 scripts/open-page.sh
  said 'make up'
  mkdir -p .stack && echo native >.stack/backend
  unset DISPLAY WAYLAND_DISPLAY
  run -0 --separate-stderr scripts/open-page.sh
  [ "$output" = http://localhost:8080 ]
  write_script "$STUBS/my-browser" <<<"echo \"\$*\" >>'$CALLS'"
  BROWSER=my-browser SERVICE=mlflow run -0 scripts/open-page.sh
  called 'http://localhost:5000/#/experiments?workflowType=machine_learning'
  SERVICE=nonsense run -1 scripts/open-page.sh
  said 'choose one of'
}

@test "an API key needs a name" {
  set_up
  run -1 scripts/manage-api-keys.sh create
  said 'make api-key NAME=ci'
  run -1 scripts/manage-api-keys.sh revoke
  said 'make revoke NAME=ci'
}
