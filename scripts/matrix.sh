#!/bin/sh
# Runs the Burn tests on four builds of Burn: with and without Burn's feature `fusion`, with and without its
# feature `vulkan` (Burn's own kernels as SPIR-V).
#
#   sh scripts/matrix.sh                       all four builds, all of their tests
#   sh scripts/matrix.sh direct                one build: fusion, direct, fusion-vulkan, direct-vulkan
#   sh scripts/matrix.sh direct optimizer lean one build, one test program, with a filter
#
# `fusion` is the same build as in scripts/test.sh. Each build of Burn takes a quarter of an hour on two cores,
# in target/matrix. scripts/matrix/Cargo.lock is a copy of the crate's. Drivers are those of scripts/test.sh.
# Software drivers crash on some of Burn's own SPIR-V kernels (tests/README.md), so with `vulkan` each test runs
# in a separate process, and crashes are counted.
#
# Logs are written to target/matrix. Exits with 1 if a test failed or crashed, and prints a line for each program.
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

# Runs each test of a program in a separate process. $1: the program, $2: the log.
separately() {
    : >"$2"
    passed=0 ignored=0 broken=0 crashed=0
    "$1" --list >"$2.list" 2>>"$2" || return 1
    while IFS= read -r name; do
        case $name in *"$filter"*": test") ;; *) continue ;; esac
        name=${name%: test}
        code=0
        timeout 600 "$1" --exact "$name" >"$2.one" 2>&1 </dev/null || code=$?
        outcome=
        case $code in
            0) outcome=$(sed -n 's/^test result: ok\. \([01]\) passed; 0 failed; \([01]\) ignored.*/\1 \2/p' "$2.one") ;;
            101) outcome=failed ;;
        esac
        case $outcome in
            "1 0") passed=$((passed + 1)) outcome=ok ;;
            "0 1") ignored=$((ignored + 1)) outcome=ignored ;;
            failed) broken=$((broken + 1)) ;;
            *) crashed=$((crashed + 1)) outcome="crashed, $code" ;;
        esac
        echo "$outcome: $name" >>"$2"
        [ "$outcome" != failed ] || sed 's/^/    /' "$2.one" >>"$2"
    done <"$2.list"
    rm -f "$2.list" "$2.one"
    result="$passed passed; $broken failed; $crashed crashed; $ignored ignored"
    [ $((broken + crashed)) -eq 0 ] && [ "$passed" -gt 0 ]
}

failed=0
report=
for build in $builds; do
    case $build in
        fusion) features="--features fusion" ;;
        direct) features= ;;
        fusion-vulkan) features="--features fusion,vulkan" ;;
        direct-vulkan) features="--features vulkan" ;;
        *)
            echo "there is no build '$build'; the builds are fusion, direct, fusion-vulkan and direct-vulkan"
            exit 2
            ;;
    esac
    for program in $programs; do
        log=$CARGO_TARGET_DIR/$build-$program.log
        echo "== $build, $program"
        # shellcheck disable=SC2086
        set -- --release --manifest-path scripts/matrix/Cargo.toml $features --test "$program"
        status=0 result=
        case $build in
            *vulkan)
                built=$CARGO_TARGET_DIR/$build-$program.json
                cargo test "$@" --no-run --message-format=json >"$built" || exit 1
                run=$(sed -n "s/.*\"name\":\"$program\".*\"executable\":\"\([^\"]*\)\".*/\1/p" "$built" | tail -n 1)
                separately "$run" "$log" || status=1
                ;;
            *)
                cargo test "$@" -- ${filter:+"$filter"} >"$log" 2>&1 || status=$?
                result=$(grep '^test result' "$log")
                ;;
        esac
        [ $status -eq 0 ] || failed=1
        result=${result:-"exit code $status without a result: $log"}
        report="$report$build, $program: $result
"
        echo "$result"
    done
done
printf '\n%s' "$report"
exit $failed
