# where.sh: the services' pages, and how to sign in. Needs services.sh and a chosen backend.

# The page of a service ($1) for a browser.
page_of() {
  local page
  page=$(about "PAGE_$BACKEND" "$1")
  if [ "$1" = mlflow ]; then page=$("$PYTHON_BIN" -m src.training.where) || exit 1; fi
  printf '%s' "${page:-$(about URL "$1")}"
}

# A line for each service: its page, and how to sign in.
print_pages() {
  local service user password how page
  for service in $SHOWN; do
    read -r user password <<<"$(about SIGN_IN "$service")"
    how='no sign-in'
    if [ -n "$user" ]; then how="sign in as ${!user}, password: make credentials"; fi
    page=$(page_of "$service") || exit 1
    printf '%-14s%s\n%-14s%s\n' "$(about LABEL "$service")" "$(clickable "$page")" '' "$how"
  done
}
