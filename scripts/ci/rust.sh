#!/bin/sh
# Installs the oldest Rust that the crate supports, or another toolchain, and makes it the default. Needs rustup.
#
#   sh scripts/ci/rust.sh             the version in Cargo.toml's `rust-version`, with clippy and rustfmt
#   sh scripts/ci/rust.sh nightly     another one
set -eu
cd "$(dirname "$0")/../.."
toolchain=${1:-$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)}
rustup toolchain install "$toolchain" --profile minimal --component clippy --component rustfmt
rustup default "$toolchain"
cargo --version
