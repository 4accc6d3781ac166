#!/bin/sh
# Type-checks the library with the oldest supported Rust, `rust-version` in Cargo.toml, on each set of features.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
here=$(cargo --version | cut -d ' ' -f 2)
case $here in
    "$version" | "$version".*) toolchain= ;;
    *) toolchain=+$version ;;
esac
echo "Rust $version"
# shellcheck disable=SC2086
for features in "--features train" "--no-default-features --features burn" \
    "--no-default-features --features fused-wsam" "--no-default-features --features fused-wsam,burn"; do
    echo "== $features"
    cargo $toolchain check --release --locked --package burn-wsam --lib $features
done
