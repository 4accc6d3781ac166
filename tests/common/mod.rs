//! Shared by the integration tests; each of them uses a part. The command `wsam` uses the golden
//! reader, the replay and the engine's routes as well.
#![allow(dead_code, unreachable_pub)]

pub mod adapters;
pub mod bound;
pub mod family;
pub mod family_replay;
pub mod golden;
pub mod replay;
pub mod toy;

#[cfg(feature = "fused-wsam")]
pub mod formats;
pub mod gpu;
#[cfg(feature = "fused-wsam")]
pub mod halves;
#[cfg(feature = "fused-wsam")]
pub mod lean;
#[cfg(feature = "fused-wsam")]
pub mod raw;

#[cfg(feature = "burn")]
pub mod burned;
#[cfg(feature = "burn")]
pub mod target;
