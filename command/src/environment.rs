//! Environment variables that hide adapters.

use std::env::{split_paths, var_os};
use std::path::Path;

/// Variables in which the Vulkan loader finds lists of drivers.
const DRIVERS: [&str; 3] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"];
/// Other variables that hide adapters.
const FILTERS: [&str; 3] =
    ["WGPU_BACKEND", "VK_LOADER_DRIVERS_SELECT", "VK_LOADER_DRIVERS_DISABLE"];

/// Describes each variable that is set and may hide an adapter, for a message about a missing one.
pub(crate) fn hints() -> Vec<String> {
    let mut hints = Vec::new();
    for name in FILTERS {
        hints.extend(var_os(name).map(|value| format!("{name} is {value:?}")));
    }
    for name in DRIVERS {
        let Some(value) = var_os(name).filter(|value| !value.is_empty()) else { continue };
        let gone = |path: &std::path::PathBuf| !path.as_os_str().is_empty() && !path.exists();
        let missing: Vec<_> = split_paths(&value).filter(gone).map(|path| quoted(&path)).collect();
        hints.push(match missing.as_slice() {
            [] => format!("{name} is {value:?}"),
            [one] => format!("{name} names {one}, which does not exist"),
            several => format!("{name} names {}, which do not exist", several.join(" and ")),
        });
    }
    hints
}

fn quoted(path: &Path) -> String {
    format!("{path:?}")
}
