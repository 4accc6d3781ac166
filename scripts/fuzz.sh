#!/usr/bin/env sh
# Fuzzes the optimizer's inputs, records and configurations (fuzz/). Needs a nightly toolchain and
# `cargo install cargo-fuzz`.
#
#     sh scripts/fuzz.sh [seconds for each target]
set -eu
cd "$(dirname "$0")/.."
seconds="${1:-300}"

# The same versions of dependencies as the crate.
cp Cargo.lock fuzz/Cargo.lock

for target in records configurations; do
    echo "== $target, $seconds s"
    corpus="fuzz/corpus/$target"
    mkdir -p "$corpus"
    cargo +nightly fuzz build "$target"
    # The first input is valid; libFuzzer mutates it.
    WSAM_FUZZ_SEED="$PWD/$corpus/whole" cargo +nightly fuzz run "$target" >/dev/null 2>&1
    cargo +nightly fuzz run "$target" -- "-max_total_time=$seconds" -max_len=8192 -print_final_stats=1
done
