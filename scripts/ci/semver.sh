#!/bin/sh
# Compares the public API, with all features on, with that of another commit: a breaking change needs a new minor
# version while the major one is 0. Builds cargo-semver-checks if it is missing.
#
#   sh scripts/ci/semver.sh COMMIT
set -eu
cd "$(dirname "$0")/../.."
command -v cargo-semver-checks >/dev/null 2>&1 || cargo install --locked --version 0.51.0 cargo-semver-checks
cargo semver-checks --package burn-wsam --baseline-rev "$1"
