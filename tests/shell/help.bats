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
    text=$(sed -nE "s/^$target:.*## (.*)/\1/p" Makefile)
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
  [ "$phony" = "$(targets | sort)" ]
}

@test "every script that make calls is there" {
  while IFS= read -r script; do
    [ -x "$script" ] || fail "$script is missing or not executable"
  done < <(grep -oE 'scripts/[a-z-]+\.sh' Makefile | sort -u)
}

@test "make works from another folder" {
  cd /
  run -0 make -C "$CHECKOUT"
  said baseline
}

@test "a mistyped variable is refused, a setting and a sentence are not" {
  run -2 make help EPOCH=50
  said 'unknown: EPOCH'
  run -0 make help EPOCHS=50 ZENML_PORT=8181 REASON='it is = better'
}
