#!/bin/sh
# The documentation as docs.rs builds it: all features, each item marked with the features it needs; warnings are
# errors. Marks need a nightly rustdoc; a stable one is told to take them too.
#
#   sh scripts/docs.sh [CARGO OPTIONS]    such as --open
set -eu
cd "$(dirname "$0")/.."

# Only rustdoc runs with RUSTC_BOOTSTRAP: set for cargo, it would build all dependencies again.
export RUSTDOC="$PWD/scripts/ci/rustdoc.sh"
export RUSTDOCFLAGS="--cfg docsrs -D warnings"
cargo doc --release --no-deps --package burn-wsam --features train "$@"
