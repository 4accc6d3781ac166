#!/bin/sh
# The whole test suite: formatting, lints, and all tests on three feature sets: all features, Burn
# alone, the engine alone.
#
#   sh scripts/test.sh            run everything
#   sh scripts/test.sh drivers    only see to the software Vulkan drivers
#
# GPU tests run on every adapter that Vulkan, Metal or DX12 show. On Debian and Ubuntu, software
# drivers (Mesa's lavapipe, and SwiftShader from chromium-common) are installed if they are missing.
# WSAM_NO_DRIVERS=1 leaves the machine as it is; GPU tests then show as ignored where there is no
# adapter, or fail if CI is set.
set -eu
cd "$(dirname "$0")/.."

. scripts/drivers.sh

# Burn has the same features in all three sets (tests/Cargo.toml), so that it is built once.
burn_only="--no-default-features --features burn"
fused_only="--no-default-features --features fused-wsam"

drivers
[ "${1:-}" = drivers ] && exit 0

say "formatting"
cargo fmt --all --check

# The default features and `train`.
all="--features train"

say "tests, all features"
# shellcheck disable=SC2086
cargo test --release $all
say "tests, Burn alone (tensor operations)"
# shellcheck disable=SC2086
cargo test --release $burn_only
say "tests, engine alone (raw wgpu)"
# The same engine as above, whose own tests have run: all of it compiles, and the golden files are met.
# shellcheck disable=SC2086
cargo test --release $fused_only --no-run
# shellcheck disable=SC2086
cargo test --release $fused_only --test golden --test layout --test reference
# shellcheck disable=SC2086
cargo test --release $fused_only --doc

say "lints"
cargo clippy --release --all-targets -- -D warnings
# shellcheck disable=SC2086
cargo clippy --release --all-targets $all -- -D warnings
# shellcheck disable=SC2086
cargo clippy --release --all-targets $burn_only -- -D warnings
# shellcheck disable=SC2086
cargo clippy --release --all-targets $fused_only -- -D warnings
# shellcheck disable=SC2086
RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps $all

say "what a user of one feature compiles"
# The library by itself: tensor operations must not need wgpu, nor the engine Burn.
# shellcheck disable=SC2086
cargo check --release --package burn-wsam --lib $burn_only
# shellcheck disable=SC2086
cargo check --release --package burn-wsam --lib $fused_only
# shellcheck disable=SC2086
cargo check --release --package burn-wsam-command $fused_only
# shellcheck disable=SC2086
if cargo tree --package burn-wsam -e normal $fused_only | grep -i '\bburn-core\b\|\bcubecl\b'; then
    echo "the engine's dependencies contain Burn"
    exit 1
fi
# shellcheck disable=SC2086
if cargo tree --package burn-wsam -e normal $burn_only | grep -w 'wgpu\|naga'; then
    echo "the tensor operations' dependencies contain wgpu"
    exit 1
fi

say "all passed"
