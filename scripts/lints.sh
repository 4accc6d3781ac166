#!/bin/sh
# Checks of what is not Rust code: shell scripts, workflows, spelling, TOML files, links, dependencies.
#
#   sh scripts/lints.sh            run the tools that are there, and name those that are not
#   sh scripts/lints.sh install    install all of them into target/lints first; needs Python
#
# WSAM_LINTS=all makes a missing tool an error. WSAM_ADVISORIES=1 also asks for security advisories, from the network.
set -eu
cd "$(dirname "$0")/.."

folder=$PWD/target/lints
if [ "${1:-}" = install ]; then
    python3 -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --require-hashes --only-binary :all: -r scripts/lints/requirements.txt
fi
[ ! -d "$folder/bin" ] || PATH=$folder/bin:$PATH

missing=
# Runs a tool, if it is there. $1 its program, $2 what is checked, the rest is the command.
lint() {
    tool=$1 what=$2
    shift 2
    if command -v "$tool" >/dev/null 2>&1; then
        printf '%s: ' "$what"
        "$@" >"$log" 2>&1 && echo "passed" && return 0
        echo "failed"
        cat "$log"
        failed="${failed:-} $tool"
    else
        echo "$what: not checked, $tool is not installed"
        missing="$missing $tool"
    fi
}

# cargo shear fails on its other findings too, which are not asked for.
unused() { { cargo shear --locked --format=json || true; } | python3 scripts/lints/unused.py; }

failed=
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# shellcheck disable=SC2046
lint shellcheck "shell scripts" shellcheck --external-sources --source-path=. $(git ls-files '*.sh') .ci/run
lint actionlint "workflows, by actionlint" actionlint
lint zizmor "workflows, by zizmor" zizmor --offline --quiet .github
lint typos "spelling" typos --format brief
lint taplo "TOML files" taplo fmt --check
# scripts/backends has the two ends of docs/backends.md.
# shellcheck disable=SC2046
lint python3 "links between pages" python3 scripts/lints/links.py $(git ls-files '*.md' ':!scripts/backends/*.md')
lint cargo-deny "licences, versions and sources of dependencies" cargo deny --locked check bans licenses sources
[ -z "${WSAM_ADVISORIES:-}" ] || lint cargo-deny "security advisories" cargo deny --locked check advisories
lint cargo-shear "unused dependencies" unused

if [ -n "$missing" ]; then
    echo "for what was not checked: sh scripts/lints.sh install"
    [ "${WSAM_LINTS:-}" != all ] || failed="$failed$missing"
fi
[ -z "$failed" ] || {
    echo "failed:$failed"
    exit 1
}
