#!/usr/bin/env bash
# Print bash code (zsh reads it too) that completes make's targets and variables in this checkout.
# Usage: eval "$(make completion)"
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"

main() {
  cat <<SH
_zenml_cv_yolo() {
  local words=() word=\${COMP_WORDS[COMP_CWORD]} makefile=$(printf %q "$ROOT/Makefile")
  [ "\$PWD/Makefile" -ef "\$makefile" ] || return 0
  words=(\$(sed -nE 's/^([a-z-]+):.*## .*/\1/p; ' "\$makefile")
    \$(sed -nE 's/^[a-z-]+:.*\[([A-Z0-9_ ]+)\]\$/\1/p' "\$makefile" | tr ' ' '\n' | sort -u | sed 's/\$/=/')
    \$(sed -nE 's/^([A-Z][A-Z0-9_]*=).*/\1/p' "\${makefile%/*}/.env.example"))
  COMPREPLY=(\$(compgen -W "\${words[*]}" -- "\$word"))
  case \${COMPREPLY[0]:-} in *=) compopt -o nospace 2>/dev/null || return 0 ;; esac
}
[ -z "\${ZSH_VERSION:-}" ] || { autoload -Uz bashcompinit && bashcompinit; }
complete -F _zenml_cv_yolo make
SH
}

main "$@"
