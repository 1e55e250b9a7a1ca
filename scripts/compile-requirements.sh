#!/usr/bin/env bash
# Compile requirements.txt and requirements-dev.txt from their .in files, for Python 3.11 to 3.13 on
# Linux and macOS. The CUDA packages stay out, so that CPU-only torch wheels can be chosen; torch
# itself pins them where they are needed.
# Usage: compile-requirements.sh
# Variables: UV (the resolver; default uv on PATH, else one that is installed for this run)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

CUDA='^(nvidia-(cu|nccl|nvjit|nvshmem|nvtx)|cuda-|triton)'

compile() {
  "$UV" pip compile --quiet --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" "$@" >/dev/null
}

# The project's own environment, gigabytes of it, is not needed to compile its locks.
find_uv() {
  UV=${UV:-uv}
  if command -v "$UV" >/dev/null; then return; fi
  [ "$UV" = uv ] || die "UV=$UV: there is no such command"
  say "installing uv for this run"
  "${PYTHON:-python3}" -m venv "$WORK/uv"
  "$WORK/uv/bin/python" -m pip install -q --disable-pip-version-check uv ||
    die "uv, the resolver, could not be installed (see above): install it yourself, or make lock UV=/path/to/uv"
  UV=$WORK/uv/bin/uv
}

# PyTorch's builds, of which setup chooses one, have different hashes under the same version.
leave_torch_open() {
  awk '/^[^ #]/ { torch = /^torch(vision)?==/; if (torch) sub(/ *\\$/, "") }
    !(torch && /^ *--hash=/)' requirements.txt >"$ALL"
  cp "$ALL" requirements.txt
}

main() {
  local name skip=()
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/lock.XXXXXX")
  trap 'rm -rf "$WORK"' EXIT
  ALL=$WORK/all.txt
  find_uv
  say "resolver: $("$UV" --version)"
  compile requirements.in -o "$ALL"
  while IFS= read -r name; do skip+=(--no-emit-package "$name"); done < <(
    grep -oE "${CUDA}[a-z0-9-]*" "$ALL" | sort -u
  )
  compile requirements.in -o requirements.txt "${skip[@]}"
  compile -c requirements.txt requirements-dev.in -o requirements-dev.txt
  leave_torch_open
}

main "$@"
