# make support: in a checkout that is set up, and in one that is not.

setup() {
  load helper
  make_checkout
}

@test "a checkout that is not set up gets its archive too" {
  PATH=$STUBS:$PATH run -0 --separate-stderr make support
  [ "$output" = "$CHECKOUT/support.tar.gz" ]
  is_private support.tar.gz
  run -0 tar -xOf support.tar.gz support/doctor.txt
  said 'make setup'
  [ ! -e .stack ]
  run -0 git status --porcelain --untracked-files=all -- support.tar.gz
  [ "$output" = '' ]
}

@test "no secret of .env is in it" {
  set_up
  stub_backend
  run -0 scripts/start-services.sh
  run -0 scripts/gather-support.sh
  tar -xOf support.tar.gz >all
  while IFS='=' read -r _ secret; do
    if grep -qF -- "$secret" all; then fail "$secret is in it"; fi
  done < <(grep -E '^[A-Z_]*(_PASSWORD|_SECRET_KEY|ENCRYPTION_KEY|API_KEY)=.' .env)
  grep -q '^ZENML_ADMIN_PASSWORD=(removed)' all
}
