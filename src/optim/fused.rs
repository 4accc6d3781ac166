//! The fused route: runs steps through the engine, on the buffers of Burn's tensors.
//!
//! The engine never writes to memory that a Burn tensor refers to. The ascent writes `w + e_w`, and the descent the
//! new weights, into new arenas. `w` stays unchanged, so restoring it needs no copy, and a clone of the model that
//! the user keeps never changes. State is stored in arenas that only this optimizer uses.
//!
//! The model gets the new memory in one of two ways. If something else refers to its tensors, such as a clone, the
//! step replaces them. Otherwise it is taken in place: Burn's fusion server is told that the model's own tensors now
//! refer to the new memory, once all operations that read them have run. So the same module, with the same leaves of
//! the autodiff graph, serves both passes. A view or a result that refers to the old memory keeps it.

mod backend;
mod burn_base;
mod lean_steps;
mod masters;
mod method_memories;
mod method_states;
mod momentum;
mod outcomes;
mod params;
mod phase_states;
mod resolve;
mod states;
mod steps;

pub(crate) use backend::Fused;
