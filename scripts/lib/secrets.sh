# secrets.sh: random secrets, and the files through which the services get theirs. Needs env.sh; what
# writes services' files needs services.sh and loaded settings too.

random_secret() { head -c 16 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

# Replace the file $1 by stdin in one move, with mode $2. Returns 1 when it held that already.
install_file() {
  local file=$1 mode=$2 new
  new=$(dirname "$file")/.$(basename "$file").new
  (umask 077 && cat >"$new" && chmod "$mode" "$new") || {
    error "$file could not be written (see above)"
    exit 2
  }
  if cmp -s "$new" "$file"; then
    rm -f "$new"
    return 1
  fi
  mv "$new" "$file"
}

# The same where nobody asks whether it changed.
ensure_file() { install_file "$@" || [ $? = 1 ]; }

# Write the settings of each service that the launcher starts on backend $1 to $2/SERVICE.env, of
# mode $3.
write_service_settings() {
  local launched=LAUNCHED_$1 folder=$2 mode=$3 service
  for service in ${!launched}; do service_settings "$service" | ensure_file "$folder/$service.env" "$mode"; done
}

service_settings() {
  local name
  for name in $(about SETTINGS "$1"); do printf '%s=%s\n' "$name" "${!name}"; done
}

# What the containers mount: 0644 in a folder of 0700, since each container has a user of its own
# who must read them.
write_docker_secrets() {
  local folder=$STATE/docker/secrets name
  for name in $(mysql_passwords); do
    [ -n "${!name:-}" ] || die "$name is not set: run make setup"
  done
  ensure_private_folder "$folder"
  write_service_settings docker "$folder" 644
  printf '%s' "$MYSQL_ROOT_PASSWORD" | ensure_file "$folder/mysql-root-password" 644
  printf '%s' "$MINIO_ROOT_PASSWORD" | ensure_file "$folder/store-root-password" 644
  printf '[client]\nhost=127.0.0.1\nuser=zenml\npassword=%s\n' "$MYSQL_ZENML_PASSWORD" |
    ensure_file "$folder/mysql-client.cnf" 644
  mysql_users | ensure_file "$folder/mysql-users.sql" 644
}

mysql_passwords() { sed -n 's/^\(MYSQL_[A-Z0-9]*_PASSWORD\)=.*/\1/p' "$ROOT/.env.example"; }

# A database and a user of its own for each MYSQL_name_PASSWORD. Every start of MySQL runs these,
# and they must do no harm when repeated: a statement a line.
mysql_users() {
  local name user
  for name in $(mysql_passwords); do
    [ "$name" != MYSQL_ROOT_PASSWORD ] || continue
    user=$(printf '%s' "${name#MYSQL_}" | tr '[:upper:]' '[:lower:]')
    user=${user%_password}
    printf "CREATE USER IF NOT EXISTS '%s'@'%%' IDENTIFIED BY '%s';\n" "$user" "${!name}"
    printf "ALTER USER '%s'@'%%' IDENTIFIED BY '%s';\n" "$user" "${!name}"
    printf 'CREATE DATABASE IF NOT EXISTS %s;\n' "$user"
    printf "GRANT ALL PRIVILEGES ON %s.* TO '%s'@'%%';\n" "$user" "$user"
  done
  printf "DROP USER IF EXISTS 'root'@'%%';\n"
  printf "ALTER USER 'root'@'localhost' IDENTIFIED BY '%s';\n" "$MYSQL_ROOT_PASSWORD"
}
