# Sourced by scripts that run GPU tests, from the repository's root. `drivers` installs the software Vulkan
# drivers and sets VK_DRIVER_FILES.

lavapipe=/usr/share/vulkan/icd.d/lvp_icd.$(uname -m).json
swiftshader=/usr/lib/chromium/vk_swiftshader_icd.json

say() { printf '\n== %s\n' "$1"; }

# Installs the Debian package $1 if the file $2 is missing, or prints what to install.
need() {
    [ -e "$2" ] && return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "$2 is missing, and apt-get is not available to install $1: install a Vulkan driver for your system"
        return 0
    fi
    root=
    [ "$(id -u)" -eq 0 ] || root=sudo
    [ -z "$root" ] || command -v sudo >/dev/null 2>&1 || {
        echo "$2 is missing: run 'apt-get install $1' as root"
        return 0
    }
    echo "installing $1"
    if ! DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends "$1" >/dev/null 2>&1; then
        $root apt-get update -qq || true
        DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends "$1" >/dev/null ||
            echo "could not install $1"
    fi
}

drivers() {
    say "Vulkan drivers"
    if [ "$(uname -s)" != Linux ]; then
        echo "not Linux: the system's own GPU is used"
        return 0
    fi
    # Drivers chosen by the user and those of a GPU are kept.
    if [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ]; then
        echo "set by the environment: ${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}"
        return 0
    fi
    if [ -e /dev/dri/renderD128 ] || [ -e /dev/nvidia0 ]; then
        echo "found a GPU: its own drivers are used"
        return 0
    fi
    if [ -z "${WSAM_NO_DRIVERS:-}" ]; then
        need libvulkan1 "$(find /usr/lib -name 'libvulkan.so.1' 2>/dev/null | head -n 1 | grep . || echo libvulkan.so.1)"
        need mesa-vulkan-drivers "$lavapipe"
        need chromium-common "$swiftshader"
    fi
    files=
    for file in "$lavapipe" "$swiftshader"; do
        [ -e "$file" ] && files=${files:+$files:}$file
    done
    if [ -n "$files" ]; then
        export VK_DRIVER_FILES="$files"
        echo "$files"
    else
        echo "no drivers: GPU tests will not run"
    fi
}
