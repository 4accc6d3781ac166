//! Parameter sets, timed steps and reports of the benchmarks and of `wsam bench`, `scaling` and `tune`.

pub mod rows;
pub mod sets;

#[cfg(feature = "fused-wsam")]
pub mod copy;
#[cfg(feature = "fused-wsam")]
pub mod raw;
#[cfg(feature = "fused-wsam")]
pub mod stages;

#[cfg(feature = "burn")]
pub mod burned;
#[cfg(feature = "criterion")]
pub mod report;
#[cfg(all(feature = "burn", feature = "criterion"))]
pub mod ways;
