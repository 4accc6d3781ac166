//! Steps in tensor operations without Burn's fusion, interleaved with steps of Burn's own base optimizer.
//! `cargo run --release --bin ratios` in this folder.

#[path = "../../../common/burned.rs"]
#[allow(dead_code)]
mod burned;
#[path = "../../../common/ratios.rs"]
mod ratios;
#[path = "../../../common/sets.rs"]
#[allow(dead_code)]
mod sets;

use burn::tensor::Device;

fn main() {
    ratios::all(&[("wgpu, unfused", Device::default())], |_, _| ());
}
