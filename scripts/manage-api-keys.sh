#!/usr/bin/env bash
# Make a ZenML service account for a CI runner and print its key, once, on stdout; or delete it.
# Usage: manage-api-keys.sh create|revoke
# Variables: NAME (the account's)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

main() {
  require_setup
  case ${1:-} in create) command=api-key ;; revoke) command=revoke ;; *) die "choose create or revoke" ;; esac
  [ -n "${NAME:-}" ] || die "name the account: make $command NAME=ci"
  exec "$PYTHON_BIN" -m src.bootstrap.api_keys "$1" "$NAME"
}

main "$@"
