# services.sh: the services of this checkout, and the backend that runs them. Needs env.sh and
# loaded settings, which bring the table of src/services/table.py along.
#
# A backend, scripts/backends/NAME.sh, can be sourced at any time, does nothing by itself, keeps its
# state in $STATE/NAME, and implements
#   backend_faults        print why it can't run here, a line each; nothing when it can
#   backend_settled       whether everything runs as the settings want it; looks only
#   backend_up            start what is not running, carrying changed settings through; what was
#                         begun and left by an earlier one is not a failure of this one
#   backend_restart SVC   start a service again that runs and does not answer
#   backend_states        print "service<TAB>running|starting|stopped|failed<TAB>detail" for each
#   backend_findings      print what else is wrong and what to type, a line each; looks only
#   backend_logs N [SVC]  print the last N lines of each service, or of one; FOLLOW=1 keeps on
#   backend_launch SVC …  run src/services/launcher.py where a service runs, with these arguments
#   backend_start SVC     start one that `make up` leaves alone
#   backend_stop SVC      stop one
#   backend_down          stop everything, keep every byte
#   backend_destroy       stop everything and delete the services' data
# It may call the functions of log.sh, env.sh, secrets.sh, this file and wait.sh, and use
#   SERVICES STARTED      its services, each after those it needs; those that `make up` starts
#   LAUNCHED              its services that src/services/launcher.py starts
#   OPTIONAL              those that start only when asked for
#   SHOWN                 those whose address is shown, the one most wanted first
#   PORTS IMAGES          the settings of its ports on this machine, and of images to pull
#   BACKEND_STATE         $STATE/NAME
# and every setting under its name, as shell variables.

# One of the table's values: about LABEL|URL|SETTINGS|PAGE_backend|SIGN_IN service
about() {
  local name=$1_${2//-/_}
  printf '%s' "${!name:-}"
}

# Whether a word ($1) is one of the following.
is_one_of() {
  local word=$1 other
  shift
  for other; do [ "$word" != "$other" ] || return 0; done
  return 1
}

# The second field of a service's line: told_of zenml <<<"$states"
told_of() { awk -F'\t' -v s="$1" '$1 == s { print $2 }'; }

# Whether `make up` leaves a service alone.
# shellcheck disable=SC2086 # one word for each
is_optional() { is_one_of "$1" $OPTIONAL; }

# Run one function of a backend that is not the chosen one: with_backend docker backend_faults
with_backend() (
  use_backend "$1"
  shift
  "$@"
)

use_backend() {
  local name
  BACKEND=$1
  [ -f "$ROOT/scripts/backends/$BACKEND.sh" ] || die "MODE=$BACKEND: there is no such backend"
  BACKEND_STATE=$STATE/$BACKEND
  for name in SERVICES STARTED OPTIONAL LAUNCHED SHOWN PORTS IMAGES; do
    local from=${name}_$BACKEND
    printf -v "$name" '%s' "${!from:-}"
  done
  # What `make serve` found the model of the data set in use to be.
  if [ "${SERVE_MODEL:-}" = auto ] && [ -f "$STATE/serve-model" ]; then SERVE_MODEL=$(cat "$STATE/serve-model"); fi
  # shellcheck source=scripts/backends/native.sh
  . "$ROOT/scripts/backends/$BACKEND.sh"
}

# Docker where it can be used, else native. Data that the other backend holds is worth a word.
choose_automatically() {
  local other fault
  fault=$(with_backend docker backend_faults)
  if [ -z "$fault" ]; then
    BACKEND=docker other=native BACKEND_REASON="an engine and Compose v2 answer"
  else
    BACKEND=native other=docker BACKEND_REASON=${fault%%: *}
  fi
  [ ! -f "$STATE/$other/applied.env" ] ||
    BACKEND_REASON="$BACKEND_REASON; earlier data are in the $other backend: MODE=$other"
}

# Set BACKEND: the one that runs, else what MODE says.
choose_backend() {
  local running=''
  [ ! -f "$STATE/backend" ] || running=$(grep -xE '[a-z]+' "$STATE/backend") || : # it may be torn
  if [ -n "$running" ]; then
    BACKEND=$running BACKEND_REASON="it runs already"
    [ "$MODE" = auto ] || [ "$MODE" = "$running" ] ||
      die "this checkout runs on the $running backend: make down first, then MODE=$MODE"
  elif [ "$MODE" = auto ]; then
    choose_automatically
  else
    BACKEND=$MODE BACKEND_REASON="MODE=$MODE"
  fi
  use_backend "$BACKEND"
}

# Say why the backend can't run here and return 1, or return 0.
backend_check() {
  local faults line
  faults=$(backend_faults)
  [ -n "$faults" ] || return 0
  while IFS= read -r line; do error "$line"; done <<<"$faults"
  return 1
}

# Why a service's launcher refused to start it, where that is what it said last.
refusal() { FOLLOW='' backend_logs 1 "$1" | sed -n -E 's/^([a-z0-9-]+ *[|] )?error: //p'; }

# What people are shown of backend_states: not what does not start by itself and does not run, and
# what has no address of its own only when something is wrong with it.
service_states() {
  local service state detail
  while IFS=$'\t' read -r service state detail; do
    # shellcheck disable=SC2086 # a word for each service
    case $state in
      running) is_one_of "$service" $SHOWN || is_optional "$service" || continue ;;
      stopped) ! is_optional "$service" || continue ;;
    esac
    printf '%s\t%s\t%s\n' "$service" "$state" "$detail"
  done < <(backend_states)
}
