#!/bin/sh
# The tests that use a GPU, on the graphics API of this system: Metal on macOS, DX12 on Windows, Vulkan elsewhere.
#
#   sh scripts/platform.sh [FILTER]    golden, engine and optimizer; a filter narrows them
#
# WGPU_BACKEND names another API. Prints the rows of docs/backends.md. Logs lie in target/platform. Exits with 1 if
# a test failed, or if there is no adapter.
set -eu
cd "$(dirname "$0")/.."

case $(uname -s) in
    Darwin) name=Metal api=metal ;;
    MINGW* | MSYS* | CYGWIN*) name=DX12 api=dx12 ;;
    *) name=Vulkan api=vulkan ;;
esac
export WGPU_BACKEND="${WGPU_BACKEND:-$api}" CI=true
[ "$name" != Vulkan ] || {
    . scripts/drivers.sh
    drivers
}
logs=target/platform
mkdir -p "$logs"

status=0
: >"$logs/rows.md"
for program in golden engine optimizer; do
    log=$logs/$program.log code=0
    cargo test --release --features train --test "$program" -- "$@" >"$log" 2>&1 || code=$?
    cat "$log"
    result=$(sed -n 's/^test result: [a-zA-Z]*\. \([0-9]*\) passed; \([0-9]*\) failed;.*/run \1, failed \2/p' "$log" | tail -n 1)
    adapters=$(sed -n 's/^adapter \[.*\]: //p' "$log" | sort -u | tr '\n' ';')
    [ "$code" -eq 0 ] || status=1
    echo "| $name | tests/$program | ${result:-failed: ended with $code} | $adapters |" >>"$logs/rows.md"
done
cat "$logs/rows.md"
exit "$status"
