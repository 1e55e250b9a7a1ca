#!/usr/bin/env bash
# Print addresses, user names and passwords on stdout.
# Usage: show-credentials.sh
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
. "$ROOT/scripts/lib/backend.sh"

main() {
  load_settings
  choose_backend
  local browser="$STORE_URL/minio/" mlflow_user='(none asked)' mlflow_password=''
  [ "$BACKEND" != docker ] || browser=http://$CLIENT_HOST:$MINIO_CONSOLE_PORT
  if [ "$LOOPBACK" = false ]; then mlflow_user=$MLFLOW_ADMIN_USERNAME mlflow_password=$MLFLOW_ADMIN_PASSWORD; fi
  printf '%-14s %-30s %-14s %s\n' SERVICE ADDRESS USER PASSWORD \
    ZenML "$ZENML_URL" "$ZENML_ADMIN_USERNAME" "$ZENML_ADMIN_PASSWORD" \
    MLflow "$MLFLOW_URL" "$mlflow_user" "$mlflow_password" \
    'Object store' "$STORE_URL" "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD" \
    '  in a browser' "$browser" "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD"
}

main "$@"
