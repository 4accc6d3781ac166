//! Code that tests, benchmarks, examples and the command `wsam` share. Not published.

use std::path::PathBuf;

pub mod adapters;
pub mod bench;
pub mod bound;
pub mod contours;
pub mod family;
#[cfg(feature = "fused-wsam")]
pub mod family_engine_route;
pub mod family_replay;
pub mod golden;
pub mod gpu;
pub mod replay;
pub mod toy;

#[cfg(feature = "fused-wsam")]
pub mod engine_route;
#[cfg(feature = "fused-wsam")]
pub mod formats;
#[cfg(feature = "fused-wsam")]
pub mod half_model;
#[cfg(feature = "fused-wsam")]
pub mod lean_route;

#[cfg(feature = "burn")]
pub mod burn_family_route;
#[cfg(feature = "burn")]
pub mod burn_route;
#[cfg(feature = "burn")]
pub mod digits;
#[cfg(feature = "burn")]
pub mod nets;
#[cfg(feature = "burn")]
pub mod target;

/// The repository's folder.
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
