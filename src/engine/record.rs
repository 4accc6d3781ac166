//! The recipe that every phase of a step follows: check the inputs, sort the tensors into parameter classes,
//! compute the constants, and record the plan. A [`PhaseSpec`] says in what a phase differs from the others.

use super::checks::check_slices;
use super::columns::PhaseTensor;
use super::constants::Constants;
use super::encode::PhaseInputs;
use super::error::EngineError;
use super::method_constants::PhaseKind;
use super::method_state::MethodState;
use super::options::{BlendSource, InvScale, Rates};
use super::param_classes::ParamClasses;
use super::phase::{Phase, Reduction};
use super::plan::Plan;
use super::recorder::Engine;
use super::stats::StepStats;
use crate::layout::{Kernel, ParamClassUniforms, UpdateOf};
use crate::method::Hyperparameters;
use std::sync::Arc;
use std::time::Instant;

/// What distinguishes a phase from the others.
pub(super) struct PhaseSpec<'a> {
    /// Label of the compute pass.
    pub(super) label: &'static str,
    pub(super) hyper: &'a Hyperparameters,
    pub(super) reduction: Reduction,
    /// The update of the method's state.
    pub(super) update: Option<UpdateOf>,
    pub(super) kernel: Kernel,
    /// Which constants of the method the phase uses.
    pub(super) kind: PhaseKind,
    /// Whether each perturbed tensor must have a method state.
    pub(super) method_state: bool,
    pub(super) norms: NormsSource<'a>,
    /// Norms buffer of an ascent that the step of one pass continues.
    pub(super) perturbation: Option<&'a wgpu::Buffer>,
    /// Learning rates. A phase without a base step does not use them.
    pub(super) rates: Rates<'a>,
    /// Number of state tensors that each tensor must have.
    pub(super) states: usize,
    pub(super) blend: BlendSource<'a>,
    /// Changes the constants of each parameter class.
    pub(super) change: fn(ParamClassUniforms) -> ParamClassUniforms,
    /// Seed for stochastic rounding.
    pub(super) seed: u64,
}

/// The norms buffer of a phase.
pub(super) enum NormsSource<'a> {
    /// The phase begins a step, so it makes the buffer.
    New(InvScale<'a>),
    /// The phase continues the step of an ascent over this many tensors.
    Ascent(&'a wgpu::Buffer, usize),
}

impl NormsSource<'_> {
    /// Checks that the phase has as many tensors as the ascent that it continues.
    pub(super) fn check(&self, descent: usize) -> Result<(), EngineError> {
        match *self {
            Self::Ascent(_, ascent) if ascent != descent => {
                Err(EngineError::TensorCount { ascent, descent })
            }
            _ => Ok(()),
        }
    }
}

/// A recorded phase.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) norms: wgpu::Buffer,
    pub(super) stats: StepStats,
}

impl<'a> PhaseSpec<'a> {
    /// Creates the spec of a phase without a base step, which uses the method's blend and constants.
    pub(super) fn new(
        label: &'static str,
        hyper: &'a Hyperparameters,
        (reduction, kernel): (Reduction, Kernel),
        norms: NormsSource<'a>,
    ) -> Self {
        Self {
            label,
            hyper,
            reduction,
            update: None,
            kernel,
            kind: PhaseKind::Plain,
            method_state: false,
            norms,
            perturbation: None,
            rates: Rates::Same(0.0),
            states: 0,
            blend: BlendSource::Method,
            change: |constants| constants,
            seed: 0,
        }
    }
}

impl PhaseSpec<'_> {
    /// Returns the spec of the same phase for tensors without state of the base optimizer.
    pub(super) fn without_states(self) -> Self {
        let kernel = match self.kernel {
            Kernel::Descent { anchored, alone, .. } => {
                Kernel::Descent { states: 0, anchored, alone }
            }
            Kernel::MethodDescent { anchored, on, .. } => {
                Kernel::MethodDescent { states: 0, anchored, on }
            }
            other => other,
        };
        Self { kernel, states: 0, ..self }
    }
}

impl Engine {
    /// Records a phase over `tensors`. On an error nothing is recorded.
    pub(super) fn record<T: PhaseTensor>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        spec: &PhaseSpec<'_>,
        tensors: &[T],
    ) -> Result<Recorded, EngineError> {
        let start = Instant::now();
        let (classes, plan, made) = self.check_and_plan(spec, tensors)?;
        // A new buffer of norms, and the uniforms.
        let (norms, scale, uploads) = match spec.norms {
            NormsSource::New(inv_scale) => {
                let (norms, scale) = self.norms_buffer(inv_scale)?;
                (norms, scale, 2)
            }
            NormsSource::Ascent(norms, _) => (norms.clone(), None, 1),
        };
        let Constants { classes, blend } = classes.constants(spec.hyper, spec.blend, spec.kind);
        let inputs = PhaseInputs {
            label: spec.label,
            constants: Constants { classes: classes.into_iter().map(spec.change).collect(), blend },
            norms: &norms,
            scale,
            perturbation: spec.perturbation,
            seed: spec.seed,
        };
        self.encode(encoder, &plan, &inputs)?;
        let (plans_made, recording) = (u32::from(made), start.elapsed());
        Ok(Recorded { norms, stats: StepStats { plans_made, uploads, recording, ..plan.stats } })
    }

    /// Checks the inputs of a phase, and returns the parameter classes, the plan, and whether the plan is new.
    pub(super) fn check_and_plan<T: PhaseTensor>(
        &self,
        spec: &PhaseSpec<'_>,
        tensors: &[T],
    ) -> Result<(ParamClasses, Arc<Plan>, bool), EngineError> {
        let PhaseSpec { hyper, rates, .. } = *spec;
        hyper.validate()?;
        rates.check(tensors.len())?;
        spec.norms.check(tensors.len())?;
        for (tensor, one) in tensors.iter().enumerate() {
            let (found, expected) = (one.state().len(), spec.states);
            if found != expected {
                return Err(EngineError::StateCount { tensor, found, expected });
            }
            if one.step() == 0 {
                return Err(EngineError::StepZero { tensor });
            }
        }
        let each = tensors
            .iter()
            .map(|tensor| (tensor.group(), tensor.step(), tensor.method_state().is_set()));
        let classes = ParamClasses::new(hyper, each, rates)?;
        for (tensor, one) in tensors.iter().enumerate() {
            let is_perturbed = classes.perturbs(tensor);
            one.check(tensor, is_perturbed)?;
            let given = *one.method_state() != MethodState::None;
            if given != (spec.method_state && is_perturbed) {
                let method = hyper.method.name();
                return Err(EngineError::MethodState { tensor, given, method });
            }
        }
        if let NormsSource::New(inv_scale) = spec.norms {
            inv_scale.check()?;
        }
        let PhaseSpec { reduction, update, kernel, .. } = *spec;
        let phase = Phase { reduction, update, kernel };
        let anchored = spec.kernel.is_anchored();
        let rows = tensors
            .iter()
            .enumerate()
            .map(|(index, tensor)| classes.row(index, tensor.len(), tensor.columns(anchored)));
        let (plan, made) = self.plan(phase, rows, || check_slices(tensors))?;
        Ok((classes, plan, made))
    }
}
