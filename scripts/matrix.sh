#!/bin/sh
# The Burn tests on every build of Burn that the fused route has to do with: with and without Burn's
# feature `fusion`, with and without its feature `vulkan` (Burn's own kernels as SPIR-V).
#
#   sh scripts/matrix.sh                       all four builds, all of their tests
#   sh scripts/matrix.sh direct                one build: fusion, direct, fusion-vulkan, direct-vulkan
#   sh scripts/matrix.sh direct optimizer lean one build, one test program, with a filter
#
# `fusion` is the build of the crate's own test command, without its other tests. Each build of Burn
# takes a quarter of an hour on two cores, in target/matrix, and scripts/matrix/Cargo.lock is the
# crate's own. Drivers are those of scripts/test.sh. Exits with 1 if a test program failed; a line for
# each says which. Software drivers do not survive Burn's own SPIR-V kernels for long: tests/README.md.
set -u
cd "$(dirname "$0")/.."

builds=${1:-"fusion direct fusion-vulkan direct-vulkan"}
programs=${2:-"golden optimizer learner"}
filter=${3:-}

. scripts/drivers.sh
drivers
export WSAM_GOLDEN_DIR="${WSAM_GOLDEN_DIR:-$PWD/tests/golden}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/matrix}"
cp Cargo.lock scripts/matrix/Cargo.lock
mkdir -p "$CARGO_TARGET_DIR"

failed=0
report=
for build in $builds; do
    case $build in
        fusion) features="--features fusion" ;;
        direct) features= ;;
        fusion-vulkan) features="--features fusion,vulkan" ;;
        direct-vulkan) features="--features vulkan" ;;
        *)
            echo "no build '$build': fusion direct fusion-vulkan direct-vulkan"
            exit 2
            ;;
    esac
    for program in $programs; do
        log=$CARGO_TARGET_DIR/$build-$program.log
        echo "== $build, $program"
        # shellcheck disable=SC2086
        cargo test --release --manifest-path scripts/matrix/Cargo.toml $features --test "$program" -- \
            ${filter:+"$filter"} >"$log" 2>&1
        status=$?
        result=$(grep '^test result' "$log" || echo "ended with $status, no result: $log")
        [ $status -eq 0 ] || failed=1
        report="$report$build, $program: $result
"
        echo "$result"
    done
done
printf '\n%s' "$report"
exit $failed
