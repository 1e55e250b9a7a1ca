#!/usr/bin/env bash
# Print the targets of a Makefile: `##@` lines are sections, `target: … ## text` their lines.
# Usage: show-help.sh MAKEFILE
set -Eeuo pipefail

main() {
  local bold='' cyan='' reset=''
  if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' cyan=$'\033[36m' reset=$'\033[0m'; fi
  printf 'Usage: make TARGET [SETTING=value …], for example: make baseline EPOCHS=5 IMGSZ=416\n'
  awk -v bold="$bold" -v cyan="$cyan" -v reset="$reset" '
    /^##@ / { printf "\n%s%s%s\n", bold, substr($0, 5), reset }
    /^[a-z-]+:.*## / {
      target = $0; sub(/:.*/, "", target)
      text = $0; sub(/.*## /, "", text)
      printf "  %s%-15s%s %s\n", cyan, target, reset, text
    }' "$1"
}

main "$@"
