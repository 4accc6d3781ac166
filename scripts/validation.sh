#!/bin/sh
# The suite under Vulkan's validation layer.
#
#   sh scripts/validation.sh                  tests/engine and tests/golden on every driver of scripts/test.sh
#   sh scripts/validation.sh engine counts    one test program, with a filter
#
# The layer is the one that Debian's chromium-common ships. Prints how often each message came, and exits
# with 1 if a test failed, if the layer said nothing of itself, or if it reported anything but what is
# listed here, with the reason.
set -eu
cd "$(dirname "$0")/.."

# VUID-StandaloneSpirv-None-10684: naga 30 writes array strides into workgroup memory too. The layer
# is newer than that rule of the specification's; nothing reads the decoration. gfx-rs/wgpu's to change.
allowed="VUID-StandaloneSpirv-None-10684"
# VUID-VkDeviceCreateInfo-robustBufferAccess-10247: Burn asks for all features of an adapter, and then wgpu 30
# asks for robustBufferAccess beside descriptorBinding*UpdateAfterBind. Once for each of Burn's devices on
# such a driver; the engine alone never asks so, and it is not allowed there. gfx-rs/wgpu's to change.
burns="VUID-VkDeviceCreateInfo-robustBufferAccess-10247"

layer=/usr/lib/chromium/libVkLayer_khronos_validation.so
[ -e "$layer" ] || { echo "$layer is missing: apt-get install chromium-common" && exit 1; }
. scripts/drivers.sh
drivers

work=$PWD/target/validation
mkdir -p "$work"
rm -f "$work"/*.txt
cat >"$work/VkLayer_khronos_validation.json" <<END
{
    "file_format_version": "1.2.0",
    "layer": {
        "name": "VK_LAYER_KHRONOS_validation",
        "type": "GLOBAL",
        "library_path": "$layer",
        "api_version": "1.3.0",
        "implementation_version": "1",
        "description": "Khronos Validation Layer",
        "instance_extensions": [{ "name": "VK_EXT_debug_utils", "spec_version": "1" }]
    }
}
END
cat >"$work/vk_layer_settings.txt" <<END
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.report_flags = error,warn
khronos_validation.log_filename = stdout
khronos_validation.enable_message_limit = false
END

programs=${1:-"engine golden"}
filter=${2:-}
failed=0
for program in $programs; do
    cargo test --release --test "$program" --no-run
    log=$work/$program.txt
    echo "== $program"
    status=0
    VK_LAYER_PATH=$work VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LAYER_SETTINGS_PATH=$work \
        cargo test --release --test "$program" -- ${filter:+"$filter"} >"$log" 2>&1 || status=$?
    grep '^test result' "$log" || true
    [ $status -eq 0 ] || failed=1
    # A layer that was not loaded reports nothing; this one has a complaint about every run.
    for id in $allowed; do
        grep -q "$id" "$log" || { echo "the layer did not report $id: was it loaded?" && failed=1; }
    done
    grep -o 'Validation \(Error\|Warning\): \[ [^]]* \]' "$log" | sort | uniq -c | sort -rn || true
    permitted=$allowed
    [ "$program" = engine ] || permitted="$allowed $burns"
    others=$(grep -o 'Validation \(Error\|Warning\): \[ [^]]* \]' "$log" |
        grep -vE "\[ ($(echo "$permitted" | tr ' ' '|')) \]" | sort -u || true)
    if [ -n "$others" ]; then
        echo "not allowed:"
        echo "$others"
        failed=1
    fi
done
exit $failed
