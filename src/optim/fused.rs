//! The fused route: runs steps through the engine, on the buffers of Burn's tensors.
//!
//! The engine never writes to existing Burn tensors. The ascent writes `w + e_w`, and the descent the new
//! weights, into new arenas. `w` stays unchanged, so restoring it needs no copy, and a clone of the model that
//! the user keeps never changes. State is stored in arenas that only this optimizer uses.

mod backend;
mod burn_base;
mod masters;
mod method_states;
mod momentum;
mod outcomes;
mod params;
mod phase_states;
mod resolve;
mod states;
mod steps;

pub(crate) use backend::Fused;
