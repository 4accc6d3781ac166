//! Norms and outcomes of steps, which the device computes and the host reads on request.

use crate::engine::{Engine, norms_of};
use crate::layout;
use crate::method::{NonFinite, Outcome};
use crate::optim::bridge::Bridge;
use crate::optim::error::WsamError;
use crate::optim::pending::{Finite, LeanStep, ReadBack};
use crate::optim::report::StepNorms;
use burn::module::ParamId;
use std::sync::Arc;

/// The part of a step whose outcome a submission decides.
#[derive(Clone, Copy)]
pub(super) enum OutcomeScope<'a> {
    /// The whole step, counted by these parameters.
    Step(&'a [ParamId]),
    /// The first phase of a lean step.
    LeanFirst(&'a [ParamId], &'a LeanStep),
    /// The second phase of a lean step.
    LeanRest(&'a LeanStep),
}

/// A host-readable copy of a step's norms, and the submission that writes it.
#[derive(Debug)]
pub(super) struct OutcomeReadback {
    pub(super) copy: wgpu::Buffer,
    /// The norms buffer of the step.
    pub(super) norms: wgpu::Buffer,
    pub(super) bridge: Bridge,
    pub(super) submission: wgpu::SubmissionIndex,
}

impl OutcomeReadback {
    /// Waits for the submission.
    pub(super) fn read(&self, engine: &Engine) -> Result<ReadBack, WsamError> {
        let bytes = engine.receive(&self.copy, self.submission.clone())?;
        let norms = norms_of(&bytes)?;
        Ok(ReadBack { finite: finite(&norms), gradient_norm: Some(norms.gradient.into()) })
    }
}

/// Norms of a step on the device.
#[derive(Debug)]
pub(super) struct DeviceNorms {
    pub(super) engine: Arc<Engine>,
    pub(super) norms: wgpu::Buffer,
    pub(super) has_gradient: bool,
    pub(super) has_perturbed: bool,
    pub(super) policy: NonFinite,
    pub(super) lean: bool,
}

impl StepNorms for DeviceNorms {
    fn gradient(&self) -> Result<Option<f64>, WsamError> {
        let read = || Ok(f64::from(self.engine.read_norms(&self.norms)?.gradient));
        self.has_gradient.then(read).transpose()
    }

    fn perturbed(&self) -> Result<Option<f64>, WsamError> {
        let read = || Ok(f64::from(self.engine.read_norms(&self.norms)?.perturbed));
        self.has_perturbed.then(read).transpose()
    }

    fn outcome(&self) -> Result<Outcome, WsamError> {
        if !self.policy.checks_gradients() {
            return Ok(Outcome::Whole);
        }
        let Finite { gradient, perturbed } = finite(&self.engine.read_norms(&self.norms)?);
        Ok(self.policy.outcome(self.lean, gradient, perturbed))
    }
}

fn finite(norms: &layout::Norms) -> Finite {
    Finite { gradient: norms.gradient_is_finite(), perturbed: norms.perturbed_is_finite() }
}
