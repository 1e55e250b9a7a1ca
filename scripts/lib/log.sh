# log.sh: what scripts say. Narration goes to stderr, coloured on a terminal only; results to stdout.

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
  _BOLD=$'\033[1m' _RED=$'\033[31m' _YELLOW=$'\033[33m' _RESET=$'\033[0m'
else
  _BOLD='' _RED='' _YELLOW='' _RESET=''
fi

say() { printf '%s\n' "$*" >&2; }
title() { printf '%s%s%s\n' "$_BOLD" "$*" "$_RESET" >&2; }
warn() { printf '%swarning:%s %s\n' "$_YELLOW" "$_RESET" "$*" >&2; }
error() { printf '%serror:%s %s\n' "$_RED" "$_RESET" "$*" >&2; }

# An address ($1), to click on where stdout is a terminal that can.
clickable() {
  if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ] && [ -z "${NO_COLOR:-}" ]; then
    printf '\033]8;;%s\a%s\033]8;;\a' "$1" "$1"
  else
    printf '%s' "$1"
  fi
}

# Where a command failed that nobody expected to fail; `die` says itself what is wrong.
report_failure() {
  error "$1:$2: ended with status $4: $3"
}

die() {
  error "$@"
  exit 1
}
