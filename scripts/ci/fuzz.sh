#!/bin/sh
# Installs cargo-fuzz if it is missing, and fuzzes (scripts/fuzz.sh). Needs a nightly toolchain.
#
#   sh scripts/ci/fuzz.sh [SECONDS]    for each target
set -eu
cd "$(dirname "$0")/../.."
command -v cargo-fuzz >/dev/null 2>&1 || cargo install --locked --version 0.13.2 cargo-fuzz
sh scripts/fuzz.sh "$@"
