#!/bin/sh
# Runs the benchmarks on this machine's adapters, from the package of scripts/gpu.sh. The results lie in
# target/burn-wsam-gpu/results.
#
#   sh scripts/ci/bench.sh [FILTER]    a criterion filter, such as "ResNet-50"
set -eu
cd "$(dirname "$0")/../.."
sh scripts/gpu.sh pack target/burn-wsam-gpu.tar.xz
tar -C target -xf target/burn-wsam-gpu.tar.xz
. scripts/drivers.sh
drivers
# Software drivers are slow.
WSAM_SECONDS=9000 sh target/burn-wsam-gpu/gpu.sh "$@"
