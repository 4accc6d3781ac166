//! Parameter sets, timed steps and reports of the benchmarks and of `wsam bench`, `scaling` and `tune`.

pub mod rows;
pub mod sets;

#[cfg(feature = "fused-wsam")]
pub mod clock;
#[cfg(feature = "fused-wsam")]
pub mod copy;
#[cfg(feature = "fused-wsam")]
pub mod engine_steps;
#[cfg(feature = "fused-wsam")]
pub mod stages;

#[cfg(feature = "burn")]
pub mod burn_models;
#[cfg(all(feature = "burn", feature = "criterion"))]
pub mod burn_steps;
#[cfg(feature = "burn")]
pub mod ratios;
#[cfg(feature = "criterion")]
pub mod report;
