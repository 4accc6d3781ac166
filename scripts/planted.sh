#!/bin/sh
# Plants each fault of planted.txt in a copy of the sources and replays the golden trajectories of WSAM's relatives on the
# engine. Fails if every trajectory still passes. Takes a minute or two for each fault.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$root/target/planted
git -C "$root" worktree prune
git -C "$root" worktree add --force --detach "$copy" HEAD >/dev/null
trap 'git -C "$root" worktree remove --force "$copy"' EXIT
cd "$copy"
missed=0
while IFS= read -r line; do
    case $line in "#"* | "") continue ;; esac
    file=$(printf '%s\n' "$line" | awk -F ' [|] ' '{ print $1 }')
    git checkout --quiet -- shaders
    FAULT=$line awk '
        BEGIN { split(ENVIRON["FAULT"], part, " [|] ") }
        (at = index($0, part[2])) && !done {
            $0 = substr($0, 1, at - 1) part[3] substr($0, at + length(part[2])); done = 1
        }
        { print }
        END { if (!done) exit 1 }' "shaders/$file" >planted.wgsl || { echo "not in the file: $line"; exit 2; }
    mv planted.wgsl "shaders/$file"
    found=""
    for method in gsam friendly looksam msam; do
        # A run that fails has found the fault.
        CARGO_TARGET_DIR=$root/target cargo test --quiet --release --features train --test golden -- \
            "$method" </dev/null >planted.log 2>&1 || found="$found $method"
        if grep -q "could not compile" planted.log; then
            echo "does not compile: $line"
            exit 2
        fi
    done
    echo "${found:- MISSED}: $line"
    if [ -z "$found" ]; then missed=$((missed + 1)); fi
done <"$root/scripts/planted.txt"
[ "$missed" -eq 0 ]
