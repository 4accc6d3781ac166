//! Steps in tensor operations without Burn's fusion, interleaved with steps of Burn's own base optimizer.
//! `cargo run --release --bin ratios` in this folder.

use burn::tensor::Device;
use burn_wsam_support::bench::ratios;

fn main() {
    ratios::all(&[("wgpu, unfused", Device::default())], |_, _| ());
}
