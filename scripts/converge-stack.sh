#!/usr/bin/env bash
# Bring buckets, S3 users, policies, the ZenML service account and the ZenML stack in line with
# .env, one line each: created, updated or unchanged.
# Usage: converge-stack.sh [--trust-fingerprint]     skip the look when nothing has changed since
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

main() {
  require_setup
  exec "$PYTHON_BIN" -m src.bootstrap "$@"
}

main "$@"
