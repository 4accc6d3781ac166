//! The handwritten digits that the examples and benchmarks train on, and the network that they train.

pub mod data;
pub mod model;
