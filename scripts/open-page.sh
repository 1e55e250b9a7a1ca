#!/usr/bin/env bash
# Open a service's page in the browser; where there is none, print its address.
# Usage: open-page.sh
# Variables: SERVICE (one with a page; default zenml), BROWSER (the command that opens an address)
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/services.sh"
. "$ROOT/scripts/lib/where.sh"

opener() {
  local command
  for command in ${BROWSER:+"$BROWSER"} wslview open xdg-open; do
    # Debian has another `open`, and without a display xdg-open opens a text browser, or nothing.
    case $command in
      open) [ "$(uname)" = Darwin ] || continue ;;
      xdg-open) [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] || continue ;;
    esac
    if command -v "$command"; then return; fi
  done
}

main() {
  local service=${SERVICE:-zenml} page command
  load_settings
  [ -f "$STATE/backend" ] || die "the services don't run: make up"
  choose_backend
  # shellcheck disable=SC2086 # one word for each
  is_one_of "$service" $SHOWN || die "SERVICE=$service: choose one of: $SHOWN"
  page=$(page_of "$service") || exit 1
  command=$(opener) || :
  [ -n "$command" ] || say "no browser can be opened here; the page is"
  printf '%s\n' "$page"
  [ -z "$command" ] || "$command" "$page" >/dev/null 2>&1 || die "$command could not open it"
}

main "$@"
