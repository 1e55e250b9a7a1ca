#!/usr/bin/env bash
# Print the targets of a Makefile: `##@` lines are sections, `target: … ## text [VARIABLE …]` their
# lines.
# Usage: show-help.sh MAKEFILE
set -Eeuo pipefail

main() {
  local bold='' cyan='' reset=''
  if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    bold=$'\033[1m' cyan=$'\033[36m' reset=$'\033[0m'
  fi
  printf 'Usage: make TARGET [VARIABLE=value ...], as in make baseline EPOCHS=5\n'
  awk -v bold="$bold" -v cyan="$cyan" -v reset="$reset" '
    /^##@ / { printf "\n%s%s%s\n", bold, substr($0, 5), reset }
    /^[a-z-]+:.*## / {
      target = $0; sub(/:.*/, "", target)
      text = $0; sub(/.*## /, "", text); gsub(/\$\$/, "$", text)
      variables = ""
      if (match(text, / \[[A-Z0-9_ ]+\]$/)) {
        variables = substr(text, RSTART + 2, RLENGTH - 3)
        text = substr(text, 1, RSTART - 1)
      }
      show(target, text)
      if (variables) show("", variables)
    }
    # Text beside a target, in lines of 80 columns.
    function show(left, text,    words, count, i, line) {
      count = split(text, words, " ")
      for (i = 1; i <= count; i++) {
        if (line && length(line " " words[i]) > 62) {
          printf "  %s%-15s%s %s\n", cyan, left, reset, line
          left = line = ""
        }
        line = line (line ? " " : "") words[i]
      }
      printf "  %s%-15s%s %s\n", cyan, left, reset, line
    }' "$1"
  printf '\nEvery target takes the settings of .env.example, and DEBUG=1, PYTHON, VENV.\n'
}

main "$@"
