#!/usr/bin/env bash
# Look up known vulnerabilities of the locked packages; a line for each that docs/security.md does
# not explain. Skipped, with a word, where the database can't be reached.
# Usage: audit-packages.sh
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

# What remains, each with why it doesn't matter here: see docs/security.md.
KNOWN=()

# pip-audit calls a package that it could not look up "skipped", and so an audit without a network
# clean. Prints what is wrong; ends with 3 when nothing was looked up.
judge() {
  "$PYTHON_BIN" - "$1" <<'PYTHON'
import json, pathlib, sys
report = pathlib.Path(sys.argv[1])
packages = json.loads(report.read_text())["dependencies"] if report.stat().st_size else []
found = [package for package in packages if "vulns" in package]
for package in found:
    for known in package["vulns"]:
        fixed = ", ".join(known["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {known['id']} (fixed in {fixed})")
if len(found) < len(packages):
    print(f"{len(packages) - len(found)} packages could not be looked up", file=sys.stderr)
sys.exit(3 if not found else any(package["vulns"] for package in found))
PYTHON
}

main() {
  local options=() id status=0
  "$ROOT/scripts/ensure-setup.sh" dev
  for id in ${KNOWN[@]+"${KNOWN[@]}"}; do options+=(--ignore-vuln "$id"); done
  REPORT=$(mktemp "${TMPDIR:-/tmp}/audit.XXXXXX")
  trap 'rm -f "$REPORT"' EXIT
  # Its own status can't tell a vulnerability from a missing network: the report can.
  "$PYTHON_BIN" -m pip_audit --requirement requirements.txt --no-deps --disable-pip --format json \
    --output "$REPORT" --progress-spinner off ${options[@]+"${options[@]}"} >/dev/null 2>&1 || :
  judge "$REPORT" || status=$?
  case $status in
    0) say "audit: no known vulnerabilities" ;;
    3) warn "audit: skipped, the database of vulnerabilities can't be reached" ;;
    *) die "audit: update these packages (make lock), or say in docs/security.md why they don't matter here" ;;
  esac
}

main "$@"
