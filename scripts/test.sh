#!/bin/sh
# Runs the whole test suite: formatting, lints, and all tests on three feature sets: all features, Burn
# alone, the engine alone.
#
#   sh scripts/test.sh            runs everything
#   sh scripts/test.sh drivers    only installs the software Vulkan drivers
#
# GPU tests run on every Vulkan, Metal or DX12 adapter. On Debian and Ubuntu, software drivers (Mesa's
# lavapipe, and SwiftShader from chromium-common) are installed if they are missing. WSAM_NO_DRIVERS=1
# installs nothing; GPU tests are then ignored if there is no adapter, or fail if CI is set.
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
# The engine's own tests have run above, so this compiles all tests and runs those that need no Burn.
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

say "dependencies of single features"
# The library by itself: `burn` alone must not depend on wgpu, nor `fused-wsam` alone on Burn.
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
