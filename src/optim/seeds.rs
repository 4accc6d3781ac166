//! Seeds of random numbers: the same ones in both passes of a step, and SplitMix64, which derives them.

use super::error::WsamError;
use super::walk::for_each_param;
use burn::module::Module;
use burn::tensor::Device;

/// Seeds of one step.
pub(crate) struct Masks {
    device: Device,
    seed: Option<u64>,
}

impl Masks {
    /// Seeds for the `step`-th step. Without a seed [`before`](Self::before) does nothing.
    pub(crate) fn new(device: &Device, seed: Option<u64>, step: u64) -> Self {
        let seed = seed.map(|seed| scrambled(seed ^ scrambled(step)));
        Self { device: device.clone(), seed }
    }

    /// Seeds the device's generator. Call it before a pass of `model` over the `part`-th micro-batch.
    pub(crate) fn before<M: Module>(&self, model: &M, part: usize) -> Result<(), WsamError> {
        let Some(seed) = self.seed else { return Ok(()) };
        // A lazy parameter draws random numbers when it is first read, so initialise it before seeding.
        for_each_param(model, |param, _| {
            if !param.is_initialized() {
                param.initialize();
            }
        });
        // Pending work draws its random numbers when it runs, so it must finish before seeding.
        let failed = |error| WsamError::Backend { reason: format!("{error:?}") };
        self.device.sync().map_err(failed)?;
        self.device.seed(seed.wrapping_add(part as u64));
        Ok(())
    }
}

/// Increment of the state of SplitMix64 (Steele, Lea & Flood 2014).
pub(crate) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the output of SplitMix64 that follows `state`.
pub(crate) fn scrambled(state: u64) -> u64 {
    let x = state.wrapping_add(STEP);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
