# Starting and stopping a Ray node, with a stub in place of Ray.

setup() {
  load helper
  make_checkout
  set_up
  unset RAY_ADDRESS RAY_PORT NODE_ADDRESS
  export CPUS=2
  write_script .venv/bin/python <<SH
if [ "\${2:-}" = ray.scripts.scripts ]; then
  { printf '%s\n' "\$*" && env; } >'$CALLS'
  exit
fi
exec $(printf %q "$REAL_PYTHON") "\$@"
SH
}

teardown() { scripts/stop-ray-node.sh; }

@test "a head asks for the token, which is in a private file only" {
  BIND_ADDRESS=192.0.2.10 run -0 scripts/start-ray-node.sh head
  said '192.0.2.10:6379, cells side by side: 2' 'make ray-worker RAY_ADDRESS=192.0.2.10:6379'
  called=$(cat "$CALLS")
  [[ $called == *"--head --port 6379 --node-ip-address 192.0.2.10"* ]]
  [[ $called == *RAY_AUTH_MODE=token* ]]
  token=$(grep ^RAY_SECRET_KEY= .env)
  [[ $called != *"${token#*=}"* ]]
  [ "$(cat .stack/ray/token)" = "${token#*=}" ]
  is_private .stack/ray/token
}

@test "its environment is clean" {
  MINE=mine BIND_ADDRESS=192.0.2.10 run -0 scripts/start-ray-node.sh head
  run -1 grep ^MINE= "$CALLS"
  grep -q ^RAY_USAGE_STATS_ENABLED=0 "$CALLS"
}

@test "a head on loopback is refused with the remedy" {
  run -1 scripts/start-ray-node.sh head
  said "can't reach BIND_ADDRESS=127.0.0.1" 'set it in .env'
  called ''
}

@test "a worker must be told its head, which must be there" {
  run -1 scripts/start-ray-node.sh worker
  said 'make ray-worker RAY_ADDRESS=host:port'
  RAY_ADDRESS=127.0.0.1:1 run -1 scripts/start-ray-node.sh worker
  said 'no Ray cluster at 127.0.0.1:1'
  called ''
}

@test "the folder of Ray's sockets is private, short and removed" {
  BIND_ADDRESS=192.0.2.10 run -0 scripts/start-ray-node.sh head
  folder=$(with_libraries env ray ray_folder)
  [ "${#folder}" -le 35 ]
  [ -n "$(find "$folder" -prune -perm 700)" ]
  run -0 scripts/stop-ray-node.sh
  said stopped
  [ ! -e "$folder" ]
  [ ! -e .stack/ray ]
  run -0 scripts/stop-ray-node.sh
  said 'not running'
}

@test "what Ray says when it does not start is shown" {
  write_script .venv/bin/python <<SH
[ "\${2:-}" != ray.scripts.scripts ] || { echo 'port 6379 is taken' && exit 1; }
exec $(printf %q "$REAL_PYTHON") "\$@"
SH
  BIND_ADDRESS=192.0.2.10 run -1 scripts/start-ray-node.sh head
  said 'Ray did not start: port 6379 is taken'
}
