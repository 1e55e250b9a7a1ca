# ray.sh: where this checkout's Ray node keeps its files, and whether it runs. Needs env.sh.

# Ray opens its folder to everybody, so it lies in one that is private. Its sockets lie 68 bytes
# below that, and a socket's path ends at 107 bytes (103 on macOS).
ray_folder() {
  if [ "$(length_in_bytes "$STATE")" -le 31 ]; then
    printf '%s/ray' "$STATE"
  else
    printf '/tmp/zcy-ray-%s-%s' "$(id -u)" "$(printf '%s' "$ROOT" | cksum | cut -d' ' -f1)"
  fi
}

ray_running() { "$PYTHON_BIN" -m src.services.processes ray-node; }
