#!/bin/sh
# The package as crates.io gets it: its files, its size, and where the README's links lead.
#
#   sh scripts/package.sh            files, size and links
#   sh scripts/package.sh build      also builds the library from the package (`cargo publish --dry-run`)
#   sh scripts/package.sh release    also refuses a working tree with changes, and a repository without an owner
set -eu
cd "$(dirname "$0")/.."

most=1000000
name=burn-wsam
how=${1:-list}
fail() {
    echo "$1"
    exit 1
}

allow=--allow-dirty
if [ "$how" = release ]; then
    allow=
    ! grep -q OWNER_TO_BE_NAMED Cargo.toml || fail "Cargo.toml: repository has no owner yet"
fi

# Only the library is published.
public=$(cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
print(*(p["name"] for p in json.load(sys.stdin)["packages"] if p["publish"] != []))')
[ "$public" = "$name" ] || fail "to be published: $public; this script knows $name"

# shellcheck disable=SC2086
cargo package --package "$name" --no-verify $allow
version=$(cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
print(*(p["version"] for p in json.load(sys.stdin)["packages"] if p["name"] == sys.argv[1]))' "$name")
target=${CARGO_TARGET_DIR:-target}
file=$target/package/$name-$version.crate
tar -tzf "$file" | sed "s#^$name-$version/##" | sort
size=$(wc -c <"$file")
echo "$(tar -tzf "$file" | wc -l) files, $size bytes compressed; at most $most"
[ "$size" -le "$most" ] || fail "the package is too large"
! tar -tzf "$file" | grep -v '/\.cargo_vcs_info\.json$' | grep -E 'golden|results|\.(json|bpk|u8|csv)$' || fail "test data is in the package"

# crates.io makes relative links absolute, by `repository`: each must lead to a file of the repository. Pictures are
# looked for in the same way.
python3 scripts/lints/links.py README.md CHANGELOG.md docs/*.md

case $how in
    build | release)
        # shellcheck disable=SC2086
        cargo publish --dry-run --package "$name" $allow
        ;;
esac
