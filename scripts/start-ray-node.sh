#!/usr/bin/env bash
# Make this machine a node of a Ray cluster, which takes only those who know RAY_SECRET_KEY.
# Usage: start-ray-node.sh head|worker
# Variables: RAY_PORT (of a head, default 6379), RAY_ADDRESS (of a worker's head, host:port),
# NODE_ADDRESS (this machine's, default BIND_ADDRESS for a head, for a worker that by which it
# reaches the head), CPUS (cells side by side; default: as many as fit)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/ray.sh"

# $@: ray start's arguments. A clean environment: Ray's workers inherit it. Port -1: Ray's monitor
# would serve its metrics on every address to everybody, now that prometheus_client is installed.
start_node() {
  local folder fitting gpus on_cpu log=$STATE/ray/start.log
  folder=$(ray_folder)
  [ ! -e "$folder" ] || [ -O "$folder" ] || die "$folder belongs to somebody else: delete it"
  rm -rf "$folder" "$STATE/ray" # of a node that was killed
  mkdir -m 700 "$folder"        # fails where somebody else was quicker
  ensure_private_folder "$STATE/ray"
  (umask 077 && printf '%s' "$RAY_SECRET_KEY" >"$STATE/ray/token")
  read -r fitting gpus on_cpu < <("$PYTHON_BIN" -c 'from src.training.devices import gpus
from src.zenml_pipelines.cluster import ON_CPU
from src.zenml_pipelines.grid_workers import default_jobs
print(default_jobs(10**6), gpus(), ON_CPU)') || die "this machine's cores and GPUs could not be counted: see above"
  CPUS=${CPUS:-$fitting}
  # A node with GPUs has none of its cores' cells: see offered in src/zenml_pipelines/cluster.py.
  [ "$gpus" -gt 0 ] || set -- --resources "{\"$on_cpu\": $CPUS}" "$@"
  (umask 077 && without_locks exec env -i PATH="$VENV/bin:/usr/bin:/bin:/usr/sbin:/sbin" HOME="$folder" \
    TMPDIR="$folder" LANG="${LANG:-C.UTF-8}" ZENML_CV_YOLO_RAY_NODE="$ROOT" \
    ${CUDA_VISIBLE_DEVICES+CUDA_VISIBLE_DEVICES="$CUDA_VISIBLE_DEVICES"} \
    RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$STATE/ray/token" RAY_USAGE_STATS_ENABLED=0 AUTOSCALER_METRIC_PORT=-1 ULTRALYTICS_SAFE_LOAD=true \
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=1 "$PYTHON_BIN" -m ray.scripts.scripts start \
    --temp-dir "$folder/ray" --num-cpus "$CPUS" --num-gpus "$gpus" --object-store-memory 200000000 "$@" >"$log" 2>&1) ||
    die "Ray did not start: $(tail -n 5 "$log")"
}

start_head() {
  local address=${NODE_ADDRESS:-$BIND_ADDRESS} port=${RAY_PORT:-6379}
  [ -n "${NODE_ADDRESS:-}" ] || [ "$LOOPBACK" = false ] ||
    die "other machines can't reach BIND_ADDRESS=$BIND_ADDRESS: set it in .env to this machine's address, then make stack ray-head"
  start_node --head --port "$port" --node-ip-address "$address" --include-dashboard=false
  say "Ray head: $address:$port, cells side by side: $CPUS. On other machines, with RAY_SECRET_KEY of this .env:"
  say "  make ray-worker RAY_ADDRESS=$address:$port"
}

start_worker() {
  [ -n "${RAY_ADDRESS:-}" ] || die "name the head: make ray-worker RAY_ADDRESS=host:port"
  "$PYTHON_BIN" -m src.zenml_pipelines.cluster "$RAY_ADDRESS" || exit 1
  start_node --address "$RAY_ADDRESS" ${NODE_ADDRESS:+--node-ip-address "$NODE_ADDRESS"}
  say "Ray worker: joined $RAY_ADDRESS, cells side by side: $CPUS"
}

main() {
  load_settings
  take_lock services "make ray-$1"
  if ray_running; then
    say "Ray node: runs already (make ray-stop ends it)"
    return
  fi
  case ${1:-} in
    head | worker) "start_$1" ;;
    *) die "choose head or worker" ;;
  esac
}

main "$@"
