# The parts of tests/run: a line of text and a function each. They run under `set -e` in a shell of their own, from the
# root of the repository.

# Cheap and telling ones first.
parts=(
  "fmt|source is formatted"
  "clippy|no lint complains"
  "docs|the API documentation builds without warnings"
  "unit|unit, golden, property and documentation tests of every crate"
  "conformance|one adapter suite against memory, Redis and NATS"
  "simulation|the model of the cluster, 200 seeds; the messages of a cluster, counted"
  "node|protocols by hand, official Node clients, HTTP API"
  "auth|tokens, sessions, limits and revocation, with tokens of an independent library"
  "listeners|TLS with official clients, client certificates, PROXY protocol, forwarded addresses"
  "helm|the chart: rendered, judged by schemas, alerts and dashboards by promtool"
  "deploy|image, bill of materials, stacks for Compose, and the systemd unit"
  "python|python-socketio, threads and asyncio"
  "browser|official client and the console in Chromium"
  "cluster|two and three nodes over Redis and NATS, HAProxy, broker outage"
  "stickiness|nodes behind HAProxy and nginx that stick to nothing, over Redis and NATS"
  "lifecycle|draining by signal and API, rolling restart and rebalance behind HAProxy, admission"
  "balancers|the configurations of HAProxy, nginx and Envoy under real traffic"
  "webhooks|events to a backend that takes webhooks, presence over Redis and NATS"
  "brokers|backends over Redis and NATS: official emitter, stream, service and events"
  "telemetry|metrics by promtool, traces to a collector, logs in JSON"
  "failures|brokers, nodes, networks and clients that fail under traffic"
  "autobahn|RFC 6455 and permessage-deflate by the Autobahn suite"
  "examples|the library's examples build, and echo runs"
  "fuzz|a short run of every fuzz target"
  "bench|instructions of the hot paths, held to their baselines, release build"
  "load|connections, echoes, rooms, clusters and slow clients under load, release build"
)

part_names() { printf '%s\n' "${parts[@]%%|*}"; }
part_text() { local line; for line in "${parts[@]}"; do [[ ${line%%|*} == "$1" ]] && echo "${line#*|}"; done; return 0; }
is_part() { part_names | grep -qxF -- "$1"; }
list_parts() {
  local line
  for line in "${parts[@]}"; do printf '%-12s %s\n' "${line%%|*}" "${line#*|}"; done
}

# Features that the default build of a crate leaves out and that are code of ours all the same.
adapter_features=roomcast-adapter/conformance,roomcast-adapter/redis,roomcast-adapter/nats,roomcast-adapter/simulation,roomcast-adapter/bench

# What the released image is built with: the tests run the same.
gateway_features=roomcast/otlp

part_fmt() {
  need_cargo
  cargo fmt --all --check
}

part_clippy() {
  need_cargo
  cargo clippy --workspace --all-targets --features "$adapter_features,$gateway_features" -- -D warnings
  # What `cargo run` builds.
  cargo clippy -p roomcast --all-targets -- -D warnings
}

part_docs() {
  need_cargo
  RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --features "$adapter_features,$gateway_features"
}

part_unit() {
  need_cargo
  if cargo nextest --version >/dev/null 2>&1; then
    # Tests that need a broker are the next part's. Failures once more after the summary of a thousand tests.
    cargo nextest run --workspace --no-fail-fast --failure-output immediate-final \
      -E 'not (package(roomcast-adapter) and kind(test) and binary(/redis|nats/))'
  else
    need_brokers
    cargo test --workspace --all-targets --no-fail-fast
  fi
  cargo test --workspace --doc --no-fail-fast
}

part_conformance() {
  need_cargo
  need_brokers
  cargo test -p roomcast-adapter --features conformance,redis,nats --no-fail-fast
}

part_simulation() {
  need_cargo
  # Whole clusters for thousands of virtual seconds: worth a little optimisation.
  cargo test --config profile.dev.package.roomcast-adapter.opt-level=1 \
    -p roomcast-adapter --no-default-features --features simulation --test simulation --test scale
}

part_node() {
  need_node_modules
  build_servers
  need_php
  node_tests "$tests/node/protocol" "$tests/node/clients" "$tests/node/api" "$tests/node/docs"
  # Once more with compression: the official client offers it and the test server takes it.
  PERMESSAGE_DEFLATE=1 node_tests "$tests/node/clients/socketio-client.test.js"
}

part_auth() {
  need_node_modules
  need_brokers
  build_servers
  node_tests "$tests/node/auth"
}

part_listeners() {
  need_node_modules
  need_haproxy
  need_openssl
  build_servers
  node_tests "$tests/node/listeners"
}

part_helm() {
  need_helm
  need_promtool
  need_openssl
  # Its `check` and its metrics judge what the chart says; the test server is not needed.
  if [[ -z ${ROOMCAST_BIN:-} ]]; then
    need_cargo
    cargo build -p roomcast --bin roomcast --features "$gateway_features"
  fi
  export ROOMCAST_BIN=${ROOMCAST_BIN:-$target/debug/roomcast}
  cd "$tests/helm"
  timeout -k 30 600 "$cache/helm/bin/python" -m unittest -v
}

part_deploy() {
  need_cargo
  need_cargo_cyclonedx
  need_deploy_tools
  need_brokers
  need_haproxy
  need_promtool
  need_openssl
  need_buildah
  need_systemd_analyze
  need_strace
  if [[ -z ${ROOMCAST_BIN:-} ]]; then
    cargo build -p roomcast --features "$gateway_features" --bin roomcast
  fi
  export ROOMCAST_BIN=${ROOMCAST_BIN:-$target/debug/roomcast}
  cd "$tests/deploy"
  timeout -k 30 600 "$cache/deploy/bin/python" -m unittest -v
}

part_python() {
  need_venv
  need_brokers
  # The reference server is Node's.
  [[ ${REFERENCE:-} != 1 ]] || need_node_modules
  build_servers
  cd "$tests/python"
  timeout -k 30 600 "$cache/venv/bin/python" -m unittest -v
}

part_browser() {
  need_node_modules
  need_chromium
  build_servers
  node_tests "$tests/browser"
}

part_cluster() {
  need_node_modules
  need_venv
  need_brokers
  need_haproxy
  need_chromium
  build_servers
  node_tests "$tests/node/cluster"
}

part_stickiness() {
  need_node_modules
  need_venv
  need_brokers
  need_haproxy
  need_nginx
  build_servers
  node_tests "$tests/node/stickiness"
}

part_lifecycle() {
  need_node_modules
  need_brokers
  need_haproxy
  build_servers
  # One file after the other: they look at times.
  node_flags=(--test-concurrency=1)
  node_tests "$tests/node/lifecycle"
}

part_balancers() {
  need_node_modules
  need_brokers
  need_haproxy
  need_nginx_stream
  need_deploy_tools
  need_openssl
  build_servers
  export ENVOY_BIN=${ENVOY_BIN:-$cache/deploy/bin/envoy}
  node_tests "$tests/node/balancers"
}

part_webhooks() {
  need_node_modules
  need_brokers
  build_servers
  node_tests "$tests/node/webhooks"
}

part_brokers() {
  need_node_modules
  need_brokers
  build_servers
  node_tests "$tests/node/emitter" "$tests/node/nats-backend"
}

part_telemetry() {
  need_node_modules
  need_brokers
  need_promtool
  build_servers
  node_tests "$tests/node/telemetry"
}

part_failures() {
  need_node_modules
  need_brokers
  build_servers
  # Each member of the flooded room is a descriptor, on both sides.
  ulimit -n "$(ulimit -Hn)"
  export FAILURE_ROWS=${FAILURE_ROWS:-$scratch/failures.jsonl}
  # One file after the other: they measure times.
  node_flags=(--test-concurrency=1)
  node_tests "$tests/node/failures"/{judge,broker,node,failover,client,flood,malformed}.test.js
  [[ ${UPDATE_FAILURE_TABLE:-} != 1 ]] || node "$tests/node/failures/table.js"
  node_tests "$tests/node/failures/page.test.js"
}

part_autobahn() {
  need_cargo
  "$tests/autobahn/run"
}

part_examples() {
  need_cargo
  need_node_modules
  cargo build -p roomcast --examples
  ROOMCAST_EXAMPLE_ECHO=$target/debug/examples/echo node_tests "$tests/node/examples"
}

part_fuzz() {
  need_cargo
  need_cargo_fuzz
  cd "$root/protocol"
  # The sanitizers are a nightly flag; this lets the stable compiler take it.
  export RUSTC_BOOTSTRAP=1
  local name corpus names
  names=$(cargo fuzz list)
  [[ -n $names ]] || { echo "no fuzz targets in protocol/fuzz" >&2; return 1; }
  cargo fuzz build
  for name in $names; do
    # What is found stays out of the repository; seeds that are kept there are read too.
    corpus=$cache/fuzz/$name
    mkdir -p "$corpus"
    local seeds=()
    [[ ! -d fuzz/seeds/$name ]] || seeds=("fuzz/seeds/$name")
    echo "-- $name for ${FUZZ_SECONDS:-60} s"
    cargo fuzz run "$name" "$corpus" "${seeds[@]}" -- "-max_total_time=${FUZZ_SECONDS:-60}" -print_final_stats=1
  done
}

part_bench() {
  need_cargo
  need_valgrind
  cargo bench --no-fail-fast -p roomcast-protocol -p roomcast-adapter -p roomcast --features roomcast-adapter/bench \
    --bench instructions
}

part_load() {
  need_cargo
  need_brokers
  # Writes are counted from outside.
  need_strace
  # Each connection is a descriptor, on both sides.
  ulimit -n "$(ulimit -Hn)"
  cargo build --release -p roomcast -p roomcast-tests --bin roomcast --bin loadserver --bin load --bin floor \
    --features "$gateway_features"
  # Losses, disorder, bytes, tasks and writes have bounds; times are printed.
  load idle
  load --target roomcast-library idle --watched 0
  load calls
  load connect
  load churn --time 20
  load --target roomcast-library echo
  load fanout
  load binary --members 200
  load rooms
  load cluster
  load polling
  load slow
  # The generator, where the server costs next to nothing.
  load --target floor-coalesced fanout
}

# load SCENARIO...: the time limit only ends what hangs.
load() {
  printf -- '-- load %s\n' "$*"
  timeout -k 30 300 "$target/release/load" "$@"
}

# Builds the two servers under test, in the dev profile, and tells the tests where they are.
build_servers() {
  [[ ${REFERENCE:-} != 1 ]] || return 0
  if [[ -z ${ROOMCAST_BIN:-} || -z ${ROOMCAST_TESTSERVER_BIN:-} ]]; then
    need_cargo
    cargo build -p roomcast --bin roomcast -p roomcast-tests --bin testserver --features "$gateway_features"
  fi
  export ROOMCAST_BIN=${ROOMCAST_BIN:-$target/debug/roomcast}
  export ROOMCAST_TESTSERVER_BIN=${ROOMCAST_TESTSERVER_BIN:-$target/debug/testserver}
}

# Flags of Node's runner, beside the usual ones.
node_flags=()

# Node's own runner over the test files below the given paths.
node_tests() {
  local files
  mapfile -t files < <(find "$@" -name '*.test.js' -not -path '*/node_modules/*' | sort)
  ((${#files[@]})) || { echo "no test files in $*" >&2; return 1; }
  # The time limit only ends what hangs.
  timeout -k 30 900 node --test --test-reporter=spec "${node_flags[@]}" "${files[@]}"
}
