#!/bin/sh
# Runs tests under Vulkan's validation layer.
#
#   sh scripts/validation.sh                  tests/engine and tests/golden on every driver of scripts/test.sh
#   sh scripts/validation.sh engine counts    one test program, with a filter
#
# The layer is that of Debian's chromium-common. Prints how often each message was reported. Exits with 1 if a test
# failed, if the layer was not loaded, or if it reported a message that is not allowed below.
set -eu
cd "$(dirname "$0")/.."

# VUID-StandaloneSpirv-None-10684: naga 30 decorates arrays in workgroup memory with strides. The rule against it
# is newer than naga 30, and no driver reads the decoration. To be fixed in gfx-rs/wgpu.
allowed="VUID-StandaloneSpirv-None-10684"
# VUID-VkDeviceCreateInfo-robustBufferAccess-10247: Burn requests all features of an adapter, and then wgpu 30
# requests robustBufferAccess together with descriptorBinding*UpdateAfterBind, once for each of Burn's devices on
# such a driver. The engine alone never does, so the message is not allowed there. To be fixed in gfx-rs/wgpu.
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
    # The layer reports these messages in every run, so their absence means that it was not loaded.
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
