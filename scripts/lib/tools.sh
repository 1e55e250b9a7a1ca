# tools.sh: what this checkout needs of the machine before anything is installed. Needs env.sh.

# Print the first thing that is in the way, with the remedy; nothing when nothing is.
tool_faults() {
  local tool missing='' said
  case $ROOT in
    *[\':?]*)
      echo "$ROOT: Ultralytics, Python or SQLite can't use a path with ' : or ? in it: move this checkout to another (mv)"
      return
      ;;
  esac
  for tool in git awk cmp; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
  done
  if [ -n "$missing" ]; then
    echo "not found:$missing: install with your package manager"
    return
  fi
  said=$(git -C "$ROOT" rev-parse --git-dir 2>&1) && return
  case $said in
    *safe.directory*) # Git says what to type
      echo "Git takes $ROOT for somebody else's:$(sed -n 's/^[[:space:]]*\(git config .*\)/ \1/p' <<<"$said")"
      ;;
    *) echo "$ROOT is not a Git checkout, which DVC needs: clone the repository, or run git init" ;;
  esac
}
