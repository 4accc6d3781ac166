#!/bin/sh
# rustdoc with unstable features, for scripts/docs.sh.
export RUSTC_BOOTSTRAP=1
exec rustdoc "$@"
