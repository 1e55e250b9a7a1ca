#!/usr/bin/env bash
# Compile requirements.txt and requirements-dev.txt from their .in files, for Python 3.11 to 3.13 on
# Linux and macOS. The CUDA packages stay out, so that CPU-only torch wheels can be chosen; torch
# itself pins them where they are needed.
# Usage: compile-requirements.sh
# Variables: UV (default uv)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

CUDA='^(nvidia-(cu|nccl|nvjit|nvshmem|nvtx)|cuda-|triton)'

compile() {
  "$UV" pip compile --quiet --universal --python-version 3.11 --custom-compile-command "make lock" "$@" >/dev/null
}

main() {
  local name skip=()
  UV=${UV:-uv}
  command -v "$UV" >/dev/null || die "uv is needed to compile the locks: pip install uv"
  ALL=$(mktemp "${TMPDIR:-/tmp}/lock.XXXXXX")
  trap 'rm -f "$ALL"' EXIT
  compile requirements.in -o "$ALL"
  while IFS= read -r name; do skip+=(--no-emit-package "$name"); done < <(
    grep -oE "${CUDA}[a-z0-9-]*" "$ALL" | sort -u
  )
  compile requirements.in -o requirements.txt "${skip[@]}"
  compile -c requirements.txt requirements-dev.in -o requirements-dev.txt
}

main "$@"
