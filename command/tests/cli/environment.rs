//! If no adapter is found, the error names environment variables that may hide adapters.

use super::{Finished, finished};
use assert_cmd::Command;
#[cfg(target_os = "linux")]
use serde_json::Value;

fn with(name: &str, value: &str, arguments: &[&str]) -> Finished {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("wsam"));
    finished(command.env(name, value).args(arguments))
}

const COMMANDS: &[&[&str]] = &[
    &["adapters"],
    &["adapters", "--json"],
    &["check"],
    &["bench"],
    &["scaling"],
    &["tune"],
    &["toy", "--adapter", "best"],
];

pub(crate) fn unknown_backend() {
    for arguments in COMMANDS {
        let ran = with("WGPU_BACKEND", "vulcan", arguments);
        assert!(ran.err.contains("known are vulkan (vk), metal"), "{}", ran.err);
        ran.fails(3, "WGPU_BACKEND is \"vulcan\", and \"vulcan\" is not a backend");
    }
    // A valid backend in the list does not hide an invalid one.
    let two = "WGPU_BACKEND is \"Vulkan, metall\", and \"metall\" is not a backend";
    with("WGPU_BACKEND", "Vulkan, metall", &["check"]).fails(3, two);
    with("WGPU_BACKEND", "", &["check"]).fails(3, "WGPU_BACKEND is \"\", and \"\" is not");
    // `toy` runs the oracle, which needs no adapter.
    with("WGPU_BACKEND", "vulcan", &["toy"]).ok();
}

/// A known backend that does not exist on this platform.
pub(crate) fn absent_backend() {
    let absent = if cfg!(target_os = "macos") { "dx12" } else { "metal" };
    let ran = with("WGPU_BACKEND", absent, &["check"]);
    assert!(ran.err.contains("adapter was found"), "{}", ran.err);
    ran.fails(3, &format!("WGPU_BACKEND is \"{absent}\""));
}

#[cfg(target_os = "linux")]
pub(crate) fn missing_drivers() {
    let run = |name: &str, value: &str| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("wsam"));
        for other in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"] {
            command.env_remove(other);
        }
        finished(command.env(name, value).env("WGPU_BACKEND", "vulkan").arg("adapters"))
    };
    run("VK_DRIVER_FILES", "/nonexistent/a.json")
        .fails(3, "VK_DRIVER_FILES names \"/nonexistent/a.json\", which does not exist");
    run("VK_DRIVER_FILES", "/nonexistent/a.json:/nonexistent/b.json").fails(
        3,
        "VK_DRIVER_FILES names \"/nonexistent/a.json\" and \"/nonexistent/b.json\", which do not \
         exist",
    );
    run("VK_ICD_FILENAMES", "/nonexistent/a.json").fails(3, "VK_ICD_FILENAMES names");
    // A file that exists and is not a driver.
    run("VK_DRIVER_FILES", "/dev/null").fails(3, "VK_DRIVER_FILES is \"/dev/null\"");
}

#[cfg(target_os = "linux")]
pub(crate) fn no_adapter() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("wsam"));
        for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "__EGL_VENDOR_LIBRARY_DIRS"] {
            command.env(name, "/nonexistent");
        }
        finished(command.args(arguments))
    };
    for arguments in [&["adapters"] as &[&str], &["check"], &["bench"], &["scaling"], &["tune"]] {
        run(arguments).fails(3, "no Vulkan, Metal or DX12 adapter was found");
    }
    run(&["toy", "--adapter", "best"]).fails(3, "no Vulkan, Metal or DX12 adapter was found");
    // `toy` runs the oracle, which needs no adapter.
    run(&["toy"]).ok();
    let list = run(&["adapters", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&list.out).unwrap(), Value::Array(Vec::new()));
}
