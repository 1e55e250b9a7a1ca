#!/usr/bin/env bash
# Print addresses, user names and passwords on stdout.
# Usage: show-credentials.sh
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/services.sh"

line() { printf '%-14s %-30s %-14s %s\n' "$@"; }

main() {
  local service user password page
  load_settings
  choose_backend
  line SERVICE ADDRESS USER PASSWORD
  for service in $SHOWN $OPTIONAL; do
    read -r user password <<<"$(about SIGN_IN "$service")"
    case $user in
      '') user='(none asked)' ;;
      -) user='(token)' password=${!password} ;;
      *) user=${!user} password=${!password} ;;
    esac
    line "$(about LABEL "$service")" "$(about URL "$service")" "$user" "$password"
    page=$(about "PAGE_$BACKEND" "$service")
    [ -z "$page" ] || line '  in a browser' "$page" "$user" "$password"
  done
}

main "$@"
