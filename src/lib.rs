//! Weighted Sharpness-Aware Minimization (WSAM) for [Burn](https://burn.dev), fused into a few
//! WGSL kernels on any GPU that wgpu reaches.
//!
//! WSAM (Yue et al., KDD 2023, <https://arxiv.org/abs/2305.15817>) trains towards flat minima: each
//! step climbs to `w + e_w`, takes a second gradient there, and lets a base optimizer descend with
//! a weighted blend of the two. This crate does all of a step that is not a gradient:
//!
//! - [`Wsam`] is the optimizer for Burn modules, made by [`WsamConfig`]. On a device from
//!   [`device()`] its steps run through the kernels, elsewhere in Burn's tensor operations;
//!   [`Wsam::route`] says which, and why.
//! - [`sharpness`] measures how flat a minimum is.
//! - [`guide`] leads from a Burn training loop to WSAM.
//! - [`engine`] is the same step on raw `wgpu` buffers, without Burn.
//! - [`reference`](mod@reference) is an `f64` oracle, to test against.
//!
//! # Features
//!
//! - `burn` (default): the optimizer for Burn.
//! - `fused-wsam` (default): the WGSL engine, and with `burn` the fused route.
//! - `fusion` (default): for a Burn with its feature `fusion`, which this turns on.
//! - `train`: a learner and a strategy for burn-train's `SupervisedTraining`, in the module `train`.
//! - `remote`: workers on other machines for data-parallel steps, in the module `remote`. It adds Burn's remote
//!   devices, and with them about 200 crates.

#![forbid(unsafe_code)]
// On docs.rs each item is marked with the features it needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "fused-wsam")]
pub mod engine;
#[cfg(feature = "burn")]
pub mod guide;
#[cfg(feature = "fused-wsam")]
pub mod layout;
pub mod method;
#[cfg(feature = "burn")]
mod optim;
pub mod reference;

#[cfg(feature = "burn")]
pub use crate::optim::*;

/// The version of Burn whose types the API shows.
#[cfg(feature = "burn")]
pub use burn;

/// The version of wgpu whose types the API shows.
#[cfg(feature = "fused-wsam")]
pub use wgpu;

/// Compiles the README's examples.
#[cfg(all(doctest, feature = "burn", feature = "fused-wsam"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the examples of the pages in `docs`.
#[cfg(all(doctest, feature = "burn", feature = "fused-wsam"))]
mod docs {
    #[doc = include_str!("../docs/command.md")]
    struct Command;
    #[doc = include_str!("../docs/configuration.md")]
    struct Configuration;
    #[doc = include_str!("../docs/costs.md")]
    struct Costs;
    #[doc = include_str!("../docs/data-parallel.md")]
    struct DataParallel;
    #[doc = include_str!("../docs/engine.md")]
    struct Engine;
    #[doc = include_str!("../docs/half-precision.md")]
    struct HalfPrecision;
    #[doc = include_str!("../docs/lean-mode.md")]
    struct LeanMode;
    #[doc = include_str!("../docs/limits.md")]
    struct Limits;
    #[doc = include_str!("../docs/method.md")]
    struct Method;
    #[doc = include_str!("../docs/non-finite.md")]
    struct NonFinite;
    #[doc = include_str!("../docs/routes.md")]
    struct Routes;
    #[doc = include_str!("../docs/two-calls.md")]
    struct TwoCalls;
}
