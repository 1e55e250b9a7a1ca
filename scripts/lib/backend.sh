# backend.sh: choose the backend and load its functions. Needs env.sh and loaded settings.
#
# A backend implements, for the services object-store, mlflow and zenml (and what it needs besides):
#   backend_check         say why it can't run here (one line each) and return 1, or return 0
#   backend_up            start what is not running, carrying changed settings through
#   backend_states        print "service<TAB>running|starting|stopped|failed<TAB>detail" lines
#   backend_logs N [SVC]  print the last N lines of each service, or of one; FOLLOW=1 keeps on
#   backend_down          stop everything, keep every byte
#   backend_destroy       stop everything and delete the services' data

# Docker where it can be used, else native. Data that the other backend holds is worth a word.
choose_automatically() {
  local other fault
  BACKEND_STATE=$STATE/docker
  # shellcheck source=scripts/backends/docker.sh
  . "$ROOT/scripts/backends/docker.sh"
  fault=$(docker_faults)
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
  [ ! -f "$STATE/backend" ] || running=$(cat "$STATE/backend")
  if [ -n "$running" ]; then
    BACKEND=$running BACKEND_REASON="it runs already"
    [ "$MODE" = auto ] || [ "$MODE" = "$running" ] ||
      die "this checkout runs on the $running backend: make down first, then MODE=$MODE"
  elif [ "$MODE" = auto ]; then
    choose_automatically
  else
    BACKEND=$MODE BACKEND_REASON="MODE=$MODE"
  fi
  [ -f "$ROOT/scripts/backends/$BACKEND.sh" ] || die "MODE=$BACKEND: there is no such backend"
  BACKEND_STATE=$STATE/$BACKEND
  # shellcheck source=scripts/backends/native.sh
  . "$ROOT/scripts/backends/$BACKEND.sh"
}
