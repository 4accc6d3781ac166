//! Soak tests: thousands of steps of random models, compared with the oracle, with memory in use measured; and
//! thousands of damaged records and configurations.
//!
//! `WSAM_SOAK_STEPS` sets the number of steps on each device. The default of 200 is too low to see memory
//! growth.

mod damage;
mod memory;
mod run;
mod world;

use burn_wsam_support::nets;
use burn_wsam_support::target::{self, Target};

const TESTS: &[(&str, target::Test)] = &[("random runs", world::soak)];

const DAMAGE: &[(&str, target::Test)] =
    &[("damaged records", damage::records), ("damaged configurations", damage::configurations)];

fn main() {
    let mut trials = target::on(TESTS, &target::flex(), "flex");
    trials.extend(target::on(DAMAGE, &target::flex(), "flex"));
    #[cfg(feature = "fused-wsam")]
    trials.extend(on_adapters());
    burn_wsam_support::gpu::run(trials);
}

#[cfg(feature = "fused-wsam")]
fn on_adapters() -> Vec<libtest_mimic::Trial> {
    let all = target::on_adapters(TESTS, "soak tests on the GPU", |_, _| Vec::new());
    // Tensor operations on a GPU would test Burn's kernels, not this crate.
    all.into_iter().filter(|trial| !trial.name().contains("tensor operations")).collect()
}

/// Number of steps on each device.
fn steps() -> usize {
    let Some(asked) = std::env::var_os("WSAM_SOAK_STEPS") else { return 200 };
    let steps =
        asked.to_str().and_then(|text| text.parse::<usize>().ok()).filter(|steps| *steps > 0);
    steps.unwrap_or_else(|| panic!("WSAM_SOAK_STEPS is {asked:?}, not a positive number of steps"))
}
