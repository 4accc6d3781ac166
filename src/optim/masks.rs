//! The same random numbers in both passes of a step.

use super::error::WsamError;
use super::split_mix::scrambled;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

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
        model.visit(&mut Initialise);
        // Pending work draws its random numbers when it runs, so it must finish before seeding.
        let failed = |error| WsamError::Backend { reason: format!("{error:?}") };
        self.device.sync().map_err(failed)?;
        self.device.seed(seed.wrapping_add(part as u64));
        Ok(())
    }
}

struct Initialise;

impl ModuleVisitor for Initialise {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_initialized() {
            drop(param.val());
        }
    }
}
