#!/bin/sh
# Benchmarks and tests for a machine that has a GPU and no Rust.
#
#   sh scripts/gpu.sh pack [FILE]      on a machine with Rust: builds target/burn-wsam-gpu.tar.xz or FILE
#   tar xf burn-wsam-gpu.tar.xz        on the GPU machine
#   sh burn-wsam-gpu/gpu.sh [FILTER]   on the GPU machine: runs everything. A criterion filter, such as
#                                      "ResNet-50", selects benchmarks
#
# The package has the benchmarks step (whole steps, pipelined and with a wait after each phase), kernels (stages) and
# burn (both routes in Burn, training steps), benches/results/nvidia-h200/bench_cuda.py, the tests golden, engine and
# scheduler, and the golden files. The GPU machine needs the same architecture, a glibc at least as new as `pack`
# prints, and a Vulkan driver. The package includes the loader, libvulkan.so.1. The benchmarks run first, one after
# another, on the fastest adapter, or on the one whose name contains WGPU_ADAPTER_NAME. bench_cuda.py runs where Python
# has torch and CUDA; WSAM_PYTHON names another Python. Then the tests run in parallel, on every adapter, and fail if
# none is found. VK_DRIVER_FILES and WGPU_BACKEND work as in tests/README.md.
#
# Everything ends within WSAM_SECONDS, 230 by default; software drivers need more. A benchmark that runs out of its part
# of this time skips its other rows and names them; a test that does is stopped and has failed. WSAM_BENCH_SECONDS is the
# time for one row, 0.25 by default.
#
# Results are written to results/<card> next to the script: gpu.json with everything, table.md for reading,
# step.json, kernels.json and burn.json in the format of benches/results, and logs. WSAM_RESULT sets another name than
# the card's. Exits with 1 if a test failed or a benchmark has no result.
set -eu
tests="golden engine scheduler"
benches="step kernels burn"
# What burn runs without a filter: steps in tensor operations take long.
burn_rows="ResNet-50|1000 x 1000|160 tensors|digits network"

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
    cp benches/results/nvidia-h200/bench_cuda.py "$inside/bench_cuda.py"
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

# Runs a command for at most so many seconds, where the machine has `timeout`.
limited() {
    limit=$1
    shift
    if command -v timeout >/dev/null; then
        timeout --kill-after=5 "$limit" "$@"
    else
        "$@"
    fi
}

# Seconds since the start.
elapsed() { echo $(($(date +%s) - start)); }

# A Python with torch and CUDA; fails if there is none.
torch_python() {
    for python in ${WSAM_PYTHON:-python3 python}; do
        if limited 30 "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
            echo "$python"
            return 0
        fi
    done
    return 1
}

# All rows in one table, with the program in the first column.
table() {
    echo "| program | set | | median ms | quartiles | clock | GB/s | of the copy | |"
    echo "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for name in $benches; do
        [ ! -f "$1/$name.md" ] || sed -n "/^| set |/d; /^| ---/d; s/^|/| $name |/p" "$1/$name.md"
    done
    [ ! -f "$1/pytorch.log" ] || awk '/ ms$/ {
        set = substr($0, 1, 12); base = substr($0, 14, 14); who = substr($0, 29, length($0) - 40)
        gsub(/ +$/, "", set); gsub(/ +$/, "", base); gsub(/ +$/, "", who)
        printf "| pytorch | %s | %s, %s | %s | | host | | | |\n", set, base, who, $(NF - 1)
    }' "$1/pytorch.log"
}

run() {
    cd "$(dirname "$0")"
    filter=${1:-}
    here=$PWD
    start=$(date +%s)
    seconds=${WSAM_SECONDS:-230}
    export WSAM_GOLDEN_DIR="$here/golden" CI=true RUST_BACKTRACE=1
    if ! ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1'; then
        export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    fi
    new=$here/results/new
    rm -rf "$new"
    mkdir -p "$new"
    status=0
    export WSAM_BENCH_OUT="$new" WSAM_BENCH_SECONDS="${WSAM_BENCH_SECONDS:-0.25}"
    CRITERION_HOME=$(mktemp -d)
    export CRITERION_HOME
    trap 'rm -rf "$CRITERION_HOME"' EXIT
    for name in $benches; do
        echo "== $name"
        part=20
        [ "$name" != kernels ] || part=10
        rows=$filter
        [ "$name" != burn ] || rows=${filter:-$burn_rows}
        # What is left over is for the row in which the time runs out.
        export WSAM_BENCH_LIMIT=$((seconds * part / 100 + 1))
        code=0
        limited $((WSAM_BENCH_LIMIT + seconds / 10)) "bin/$name" --bench ${rows:+"$rows"} >"$new/$name.log" 2>&1 ||
            code=$?
        # One that is stopped keeps the rows that it has.
        [ "$code" -ne 124 ] || echo "skipped after its last row: stopped" >>"$new/$name.log"
        if [ ! -f "$new/$name.md" ] || { [ "$code" -ne 0 ] && [ "$code" -ne 124 ]; }; then
            tail -n 5 "$new/$name.log"
            status=1
        fi
    done
    if python=$(torch_python); then
        echo "== pytorch"
        left=$((seconds * 85 / 100 - $(elapsed)))
        [ "$left" -ge 5 ] || left=5
        limited "$left" "$python" bench_cuda.py "$new/pytorch.json" --compile >"$new/pytorch.log" 2>&1 ||
            echo "bench_cuda.py did not end: pytorch.log has its rows"
    fi
    echo "== tests"
    left=$((seconds - $(elapsed)))
    [ "$left" -ge 10 ] || left=10
    for name in $tests; do
        {
            code=0
            limited "$left" "bin/$name" >"$new/$name.log" 2>&1 || code=$?
            echo "$code $(elapsed)" >"$new/$name.exit"
        } &
    done
    wait
    correctness=
    results=
    for name in $tests; do
        read -r code at <"$new/$name.exit"
        rm "$new/$name.exit"
        line=$(grep '^test result:' "$new/$name.log" | tail -n 1 || true)
        passed=$(echo "$line" | sed -n 's/.* \([0-9]*\) passed.*/\1/p')
        failed=$(echo "$line" | sed -n 's/.* \([0-9]*\) failed.*/\1/p')
        if [ "$code" -ne 0 ] || [ "${passed:-0}" -eq 0 ]; then
            status=1
            tail -n 20 "$new/$name.log"
        fi
        # A suite that crashed or was stopped has no counts; its exit code is kept.
        correctness="$correctness${correctness:+, }{\"suite\": \"$name\", \"exit\": $code,"
        correctness="$correctness \"passed\": ${passed:-null}, \"failed\": ${failed:-null}, \"ended_at\": $at}"
        outcome="exit code $code, no result"
        [ -z "$passed" ] || outcome="$passed passed, $failed failed"
        results="$results- $name: $outcome
"
    done
    adapters=$(sed -n 's/^adapter \[.*\]: //p' "$new/golden.log")
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
        for name in $benches pytorch; do
            printf ',\n"%s": ' "$name"
            cat "$new/$name.json" 2>/dev/null || printf null
        done
        printf '\n}\n'
    } >"$new/gpu.json"
    {
        printf '# %s\n\nCommit %s, %s, %s s.\n\n' "${card:-no adapter}" "$(cat commit)" "$(uname -srm)" "$(elapsed)"
        echo "$adapters" | sed 's/^/- /'
        printf '\nTests:\n\n%s\n' "$results"
        table "$new"
        for name in $benches; do
            grep '^skipped' "$new/$name.log" | sed "s/^/- $name: /" || true
        done
    } >"$new/table.md"
    cat "$new/table.md"
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
