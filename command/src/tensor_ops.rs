//! A step in Burn's tensor operations, the route of devices on which the kernels do not run.

use crate::error::Error;
use crate::parameters::Named;
use burn::tensor::{Device, Tensor};
use burn_wsam::method::Hyperparameters;
use burn_wsam::{NonFinitePolicy, Rejected, RoutePolicy, Wsam};
use burn_wsam_support::adapters::Gpu;
use burn_wsam_support::bench::burn_models::Flat;
use burn_wsam_support::burn_route::{config, device};
use std::time::{Duration, Instant};

/// A Burn model and its optimizer.
pub(crate) struct TensorOps {
    /// Names the adapter and the parameter set in errors.
    at: String,
    device: Device,
    optim: Wsam,
    lean: bool,
    gradients: Vec<Tensor<1>>,
    model: Option<Flat>,
}

impl TensorOps {
    pub(crate) fn new(
        gpu: &Gpu,
        adapter: &str,
        hyper: &Hyperparameters,
        lean: bool,
        (set, lens): &Named,
    ) -> Result<Self, Error> {
        let at = format!("{adapter}, {set}, tensor operations");
        let failed = |reason| Error::Burn { at: at.clone(), reason };
        let device = device(gpu).map_err(failed)?.autodiff();
        let optim = config(hyper)
            .with_route(RoutePolicy::TensorOps)
            .with_non_finite(NonFinitePolicy::Propagate)
            .init(&device)
            .map_err(|error| failed(error.to_string()))?;
        let model = Flat::new(lens, &device);
        let gradients = model.random_grads(&device.clone().inner());
        Ok(Self { at, device, optim, lean, gradients, model: Some(model) })
    }

    /// Times one step, whose gradients are computed before.
    pub(crate) fn run(&mut self) -> Result<Duration, Error> {
        let Some(model) = self.model.take() else {
            return Err(self.failed("an earlier step failed"));
        };
        let (first, second) = (model.grads(&self.gradients), model.grads(&self.gradients));
        self.wait()?;
        let start = Instant::now();
        let stepped = if self.lean {
            let ascended = self.optim.lean_ascend(1e-3, model, first);
            ascended.and_then(|ascended| self.optim.lean_descend(ascended, second))
        } else {
            let ascended = self.optim.ascend(model, first);
            ascended.and_then(|ascended| self.optim.descend(1e-3, ascended, second))
        };
        let model = stepped.map_err(|Rejected { error, .. }| self.failed(&error.to_string()))?;
        self.wait()?;
        self.model = Some(model);
        Ok(start.elapsed())
    }

    fn wait(&self) -> Result<(), Error> {
        self.device.sync().map_err(|error| self.failed(&format!("{error:?}")))
    }

    fn failed(&self, reason: &str) -> Error {
        Error::Burn { at: self.at.clone(), reason: reason.to_owned() }
    }
}
