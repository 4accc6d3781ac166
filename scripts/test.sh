#!/bin/sh
# Runs the whole test suite: formatting, lints, and all tests on three feature sets: all features, Burn
# alone, the engine alone.
#
#   sh scripts/test.sh            runs everything
#   sh scripts/test.sh tests      runs the tests
#   sh scripts/test.sh lints      runs formatting, lints and documentation, and checks the dependencies of each feature
#   sh scripts/test.sh drivers    only installs the software Vulkan drivers
#   sh scripts/test.sh remote     only lints and tests the feature `remote`, for which it builds Burn again
#
# scripts/lints.sh names the tools that are not installed, and can install them.
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

# The default features and `train`.
all="--features train"

part=${1:-all}
case $part in
    all | tests | lints) ;;
    drivers)
        drivers
        exit 0
        ;;
    remote)
        # Not part of the rest: Burn with Iroh has about 200 more crates.
        cargo clippy --release --all-targets --features train,remote -- -D warnings
        cargo test --release --features train,remote --test data_parallel
        cargo test --release --features train,remote --doc remote
        RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps --features train,remote
        cargo build --release --features train,remote --example distributed
        exit 0
        ;;
    *)
        echo "no part '$part': tests, lints, drivers, remote"
        exit 2
        ;;
esac

if [ "$part" != tests ]; then
    say "formatting"
    cargo fmt --all --check
    say "scripts, workflows, spelling, links, dependencies"
    sh scripts/lints.sh
fi

if [ "$part" != lints ]; then
    drivers
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
fi

if [ "$part" != tests ]; then
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
fi

say "all passed"
