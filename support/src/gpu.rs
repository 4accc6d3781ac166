//! Trials on every adapter; without an adapter they show as ignored.

pub use super::adapters::{Gpu, adapters, backends};

use libtest_mimic::{Arguments, Failed, Trial};

/// A test on one adapter.
pub type Test = fn(&Gpu) -> Result<(), String>;

/// One trial for each test and adapter. Where no adapter is found, each test stands once: ignored,
/// or failing under `CI`, where a driver must be there.
pub fn trials(tests: &[(&str, Test)]) -> Vec<Trial> {
    let adapters = adapters();
    if adapters.is_empty() {
        // A misspelt backend fails: tests that show as ignored would look like a machine without a GPU.
        let misspelt = backends().err();
        let in_ci = std::env::var_os("CI").is_some() || misspelt.is_some();
        let reason =
            misspelt.unwrap_or_else(|| "no GPU adapter; scripts/test.sh installs one".to_owned());
        let missing = || {
            let reason = reason.clone();
            move || Err(Failed::from(reason))
        };
        return tests
            .iter()
            .map(|(name, _)| {
                Trial::test(format!("{name} [no adapter]"), missing()).with_ignored_flag(!in_ci)
            })
            .collect();
    }
    let trial = |gpu: &Gpu, name: &str, test: Test| {
        let (title, gpu) = (format!("{name} [{}]", gpu.name), gpu.clone());
        Trial::test(title, move || test(&gpu).map_err(Failed::from))
    };
    adapters
        .iter()
        .flat_map(|gpu| tests.iter().map(move |(name, test)| trial(gpu, name, *test)))
        .collect()
}

/// Runs trials as `cargo test` would: one at a time, for they share devices and cores. Says first
/// which adapters there are.
pub fn run(trials: Vec<Trial>) -> ! {
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        for gpu in adapters() {
            let wgpu::AdapterInfo { name, driver, driver_info, backend, .. } =
                gpu.adapter.get_info();
            println!("adapter [{}]: {name}, driver {driver} {driver_info}, {backend}", gpu.name);
        }
    }
    arguments.test_threads.get_or_insert(1);
    let conclusion = libtest_mimic::run(&arguments, trials);
    #[cfg(all(feature = "burn", feature = "fused-wsam"))]
    super::burn_route::wait_for_devices();
    conclusion.exit()
}
