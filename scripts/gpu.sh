#!/bin/sh
# Tests and benchmarks for a machine that has a GPU and no Rust.
#
#   sh scripts/gpu.sh pack [FILE]      on a machine with Rust: builds target/burn-wsam-gpu.tar.xz or FILE
#   tar xf burn-wsam-gpu.tar.xz        on the GPU machine
#   sh burn-wsam-gpu/gpu.sh [FILTER]   on the GPU machine: runs everything. A criterion filter, such as
#                                      "ResNet-50", selects benchmarks
#
# The package has the tests golden, engine and scheduler, the benchmarks step and kernels, and the golden
# files. The GPU machine needs the same architecture, a glibc at least as new as `pack` prints, and a Vulkan
# driver. The package includes the loader, libvulkan.so.1. The tests run on every adapter, and fail if none is
# found. The benchmarks run on the fastest adapter, or on the one whose name contains WGPU_ADAPTER_NAME.
# VK_DRIVER_FILES and WGPU_BACKEND work as in tests/README.md.
#
# Results are written to results/<card> next to the script: gpu.json with everything, table.md for reading,
# step.json and kernels.json in the format of benches/results, and logs. WSAM_RESULT sets another name than the
# card's. Exits with 1 if a test failed or a benchmark has no result.
set -eu
tests="golden engine scheduler"
benches="step kernels"

pack() {
    cd "$(dirname "$0")/.."
    file=${1:-target/burn-wsam-gpu.tar.xz}
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    inside=$folder/burn-wsam-gpu
    mkdir -p "$inside/bin" "$inside/lib"
    targets=
    for name in $tests; do targets="$targets --test $name"; done
    for name in $benches; do targets="$targets --bench $name"; done
    # shellcheck disable=SC2086
    cargo test --release --no-run --message-format=json $targets >"$folder/cargo.json"
    for name in $tests $benches; do
        program=$(sed -n "s/.*\"name\":\"$name\".*\"executable\":\"\([^\"]*\)\".*/\1/p" \
            "$folder/cargo.json" | tail -n 1)
        [ -n "$program" ] || { echo "cargo built no $name" && exit 1; }
        cp "$program" "$inside/bin/$name"
        strip "$inside/bin/$name"
    done
    cp -r tests/golden "$inside/golden"
    cp scripts/gpu.sh "$inside/gpu.sh"
    git rev-parse HEAD >"$inside/commit" 2>/dev/null || echo unknown >"$inside/commit"
    loader=$(ldconfig -p 2>/dev/null | sed -n 's/.*libvulkan\.so\.1 .*=> //p' | head -n 1)
    [ -z "$loader" ] || cp -L "$loader" "$inside/lib/libvulkan.so.1"
    tar -C "$folder" -cJf "$file" burn-wsam-gpu
    size=$(wc -c <"$file")
    echo "$file: $((size / 1048576)) MiB for $(uname -m)," \
        "$(cat "$inside"/bin/* | grep -ao 'GLIBC_2\.[0-9]*' | sort -uV | tail -n 1)"
    if [ "$size" -gt $((60 * 1048576)) ]; then
        echo "more than 60 MiB"
        exit 1
    fi
}

# A JSON string.
quoted() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"; }

run() {
    cd "$(dirname "$0")"
    filter=${1:-}
    here=$PWD
    export WSAM_GOLDEN_DIR="$here/golden" CI=true RUST_BACKTRACE=1
    if ! ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1'; then
        export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    fi
    new=$here/results/new
    rm -rf "$new"
    mkdir -p "$new"
    status=0
    correctness=
    rows=
    for name in $tests; do
        echo "== $name"
        start=$(date +%s)
        code=0
        "bin/$name" >"$new/$name.log" 2>&1 || code=$?
        seconds=$(($(date +%s) - start))
        line=$(grep '^test result:' "$new/$name.log" | tail -n 1 || true)
        passed=$(echo "$line" | sed -n 's/.* \([0-9]*\) passed.*/\1/p')
        failed=$(echo "$line" | sed -n 's/.* \([0-9]*\) failed.*/\1/p')
        if [ "$code" -ne 0 ] || [ "${passed:-0}" -eq 0 ]; then
            status=1
            tail -n 20 "$new/$name.log"
        fi
        echo "${line:-no result}, $seconds s"
        # A suite that crashed has no counts; its exit code is kept.
        correctness="$correctness${correctness:+, }{\"suite\": \"$name\", \"exit\": $code,"
        correctness="$correctness \"passed\": ${passed:-null}, \"failed\": ${failed:-null}, \"seconds\": $seconds}"
        rows="$rows| $name | ${passed:-no result} | ${failed:-exit code $code} | $seconds |
"
    done
    adapters=$(sed -n 's/^adapter \[.*\]: //p' "$new/golden.log")
    export WSAM_BENCH_OUT="$new"
    CRITERION_HOME=$(mktemp -d)
    export CRITERION_HOME
    trap 'rm -rf "$CRITERION_HOME"' EXIT
    for name in $benches; do
        echo "== $name"
        # shellcheck disable=SC2086
        "bin/$name" --bench ${filter:+"$filter"} >"$new/$name.log" 2>&1 || status=1
        grep '^|' "$new/$name.log" || { tail -n 5 "$new/$name.log" && status=1; }
    done
    card=$(sed -n 's/^ *"adapter": "\(.*\)",*$/\1/p' "$new/step.json" 2>/dev/null | head -n 1)
    card=${card:-$(echo "$adapters" | head -n 1 | cut -d , -f 1)}
    folder=${WSAM_RESULT:-$(echo "${card:-no adapter}" | tr '[:upper:]' '[:lower:]' | tr -cs '[:lower:][:digit:].\n' '-' | sed 's/^-*//; s/-*$//')}
    {
        printf '{\n"commit": %s,\n"system": %s,\n"adapters": [' \
            "$(quoted "$(cat commit)")" "$(quoted "$(uname -srm)")"
        comma=
        echo "$adapters" | while IFS= read -r adapter; do
            [ -z "$adapter" ] || printf '%s%s' "$comma" "$(quoted "$adapter")"
            comma=', '
        done
        printf '],\n"correctness": [%s]' "$correctness"
        for name in $benches; do
            printf ',\n"%s": ' "$name"
            cat "$new/$name.json" 2>/dev/null || printf null
        done
        printf '\n}\n'
    } >"$new/gpu.json"
    {
        printf '# %s\n\nCommit %s, %s.\n\n' "${card:-no adapter}" "$(cat commit)" "$(uname -srm)"
        echo "$adapters" | sed 's/^/- /'
        printf '\n| suite | passed | failed | s |\n| --- | --- | --- | --- |\n%s' "$rows"
        for name in $benches; do
            printf '\n## %s\n\n' "$name"
            grep '^|' "$new/$name.log" || echo "no result"
        done
    } >"$new/table.md"
    rm -rf "$here/results/$folder"
    mv "$new" "$here/results/$folder"
    echo "results/$folder: gpu.json, table.md"
    exit "$status"
}

case ${1:-} in
    pack)
        shift
        pack "$@"
        ;;
    -h | --help) sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//; p;}' "$0" ;;
    *)
        if [ -d "$(dirname "$0")/bin" ]; then
            run "$@"
        else
            echo "this folder is not a package: make one with 'sh scripts/gpu.sh pack'"
            exit 2
        fi
        ;;
esac
