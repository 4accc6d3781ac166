//! The backend of the fused route: its state, and the parts that its steps share.

use super::method_memories::MethodMemories;
use super::outcomes::{DeviceNorms, OutcomeReadback, OutcomeScope};
use super::params::{NewStates, ParamStep, ResolvedParam};
use crate::engine::{Engine, GradientOptions, InvScale, Rounding, StepStats};
use crate::method::{Base, Hyperparameters, NonFinite};
use crate::optim::bridge::{AllocSpec, Bridge, DeviceTensor, Memory, identity};
use crate::optim::device::Shared;
use crate::optim::error::WsamError;
use crate::optim::pending::{PendingOutcomes, Submitted};
use crate::optim::report::Norms;
use crate::optim::step_backend::StepContext;
use burn::module::ParamId;
use std::collections::HashMap;
use std::sync::Arc;

/// Number of steps without a weight after which its stored memory location is dropped. If the weight takes part
/// again, the next step looks the location up.
const REMEMBERED_STEPS: u64 = 16;

/// The fused route of one optimizer.
#[derive(Debug)]
pub(crate) struct Fused {
    /// A fork of the device's engine, so that its plans and their buffers are dropped with the optimizer.
    pub(super) engine: Arc<Engine>,
    /// Memory of the weights after each parameter's last step.
    pub(super) weights: HashMap<ParamId, PlacedWeight>,
    /// Steps taken, over all models.
    steps: u64,
    pub(super) states: HashMap<ParamId, State>,
    pub(super) methods: MethodMemories,
    pub(super) last_step: Option<StepStats>,
    pub(super) pending: PendingOutcomes<OutcomeReadback>,
}

#[derive(Debug)]
pub(super) struct PlacedWeight {
    /// `identity` of the tensor that the last step made. If a parameter's tensor has a different identity, its
    /// value was changed outside the optimizer.
    pub(super) tensor: u64,
    pub(super) memory: Memory,
    /// Value of [`Fused::steps`] at that step.
    placed: u64,
}

/// State of one parameter.
#[derive(Debug)]
pub(super) struct State {
    pub(super) step: u64,
    pub(super) len: u64,
    /// In the order of [`Base::state_names`].
    pub(super) memory: Arc<[Memory]>,
    /// Master weights of a parameter in half precision, whose rounded copy the last step wrote to the weights.
    pub(super) master: Option<Memory>,
    pub(super) bridge: Bridge,
}

/// The weight that a step made of a parameter.
pub(super) struct NewWeight {
    pub(super) id: ParamId,
    /// `identity` of the tensor.
    pub(super) tensor: Option<u64>,
    pub(super) memory: Memory,
}

impl Fused {
    pub(crate) fn new(shared: &Shared) -> Result<Self, WsamError> {
        Ok(Self {
            engine: Arc::new(shared.engine.fork()?),
            weights: HashMap::new(),
            steps: 0,
            states: HashMap::new(),
            methods: MethodMemories::default(),
            last_step: None,
            pending: PendingOutcomes::default(),
        })
    }

    pub(crate) fn last_step_stats(&self) -> Option<StepStats> {
        self.last_step
    }

    /// Drops the stored locations of the weights, so that only the model refers to their memory.
    pub(crate) fn forget_places(&mut self) {
        self.weights.clear();
        self.engine.forget_plans();
    }

    pub(super) fn norms(
        &self,
        hyper: &Hyperparameters,
        track_norms: bool,
        lean: bool,
        norms: &wgpu::Buffer,
    ) -> Norms {
        Box::new(DeviceNorms {
            engine: self.engine.clone(),
            norms: norms.clone(),
            has_gradient: hyper.perturbs_by_gradient_norm()
                || hyper.clips_gradient()
                || track_norms,
            has_perturbed: hyper.clip.is_some() || track_norms,
            policy: hyper.non_finite,
            lean,
        })
    }

    /// Norms of a step over one gradient.
    pub(super) fn one_pass_norms(
        &self,
        hyper: &Hyperparameters,
        tracks_gradient: bool,
        norms: &wgpu::Buffer,
    ) -> Norms {
        Box::new(DeviceNorms {
            engine: self.engine.clone(),
            norms: norms.clone(),
            has_gradient: hyper.clips_gradient() || tracks_gradient,
            has_perturbed: false,
            policy: hyper.non_finite,
            lean: false,
        })
    }

    /// Rounding of `w + e_w` to half precision.
    pub(super) fn rounding(context: StepContext<'_>) -> Rounding {
        match context.rounding_seed {
            Some(seed) => Rounding::Stochastic { seed },
            None => Rounding::Nearest,
        }
    }

    /// Specs of the state of parameters that have no state yet, one list for each state.
    ///
    /// Each list becomes an arena, so that the tensors that one binding of a dispatch covers are adjacent in
    /// memory.
    pub(super) fn new_states(
        &self,
        base: &Base,
        parameters: impl Iterator<Item = (ParamId, u64)>,
    ) -> Vec<Vec<AllocSpec>> {
        let new = parameters.filter(|(id, _)| !self.states.contains_key(id));
        let new: Vec<_> = new.map(|(_, len)| AllocSpec::single(len)).collect();
        vec![new; base.state_names().len()]
    }

    /// The base optimizer's step of each parameter, with new memory for the weights and for states of parameters
    /// that have none yet.
    pub(super) fn param_steps<'a>(
        &self,
        params: &'a [ResolvedParam],
        updated: Vec<Memory>,
        new_states: Vec<Vec<Memory>>,
    ) -> Vec<ParamStep<'a>> {
        let mut new_states = NewStates::new(new_states);
        let steps = params.iter().zip(updated).map(|(param, updated)| {
            let (step, state) = match self.states.get(&param.id) {
                Some(state) => (state.step + 1, state.memory.clone()),
                None => (1, new_states.next().into()),
            };
            ParamStep { param, updated, step, state }
        });
        steps.collect()
    }

    /// Stores the states after a submitted step.
    pub(super) fn advance(&mut self, bridge: &Bridge, steps: &[ParamStep<'_>]) {
        for ParamStep { param, step, state, .. } in steps {
            let master = &param.master;
            let entry = self.states.entry(param.id).and_modify(|stored| {
                stored.step = *step;
                stored.master.clone_from(master);
            });
            entry.or_insert_with(|| State {
                step: *step,
                len: param.len,
                memory: state.clone(),
                master: master.clone(),
                bridge: bridge.clone(),
            });
        }
    }

    /// Stores the locations of the weights that the step made, with their `identity`.
    pub(super) fn place(&mut self, weights: impl Iterator<Item = NewWeight>) {
        self.steps += 1;
        let placed = self.steps;
        for NewWeight { id, tensor, memory } in weights {
            if let Some(tensor) = tensor {
                self.weights.insert(id, PlacedWeight { tensor, memory, placed });
            }
        }
        // One weight keeps a whole arena alive, so drop the weights of models that are no longer trained.
        self.weights.retain(|_, weight| placed - weight.placed < REMEMBERED_STEPS);
    }

    pub(super) fn encoder(&self) -> wgpu::CommandEncoder {
        let label = Some("wsam");
        self.engine.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label })
    }

    /// Stores the costs of a step of two phases.
    pub(super) fn count(
        &mut self,
        (bridge, in_place): (&Bridge, bool),
        ascent: StepStats,
        descent: StepStats,
    ) {
        let mut step = ascent;
        step += descent;
        step.submissions += 2;
        self.last_step = Some(with_counts(bridge, in_place, step));
    }

    pub(super) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        self.engine.queue().submit([encoder.finish()])
    }

    /// Submits work that decides a step's outcome, and queues the outcome to be read later.
    pub(super) fn submit_and_track(
        &mut self,
        bridge: &Bridge,
        mut encoder: wgpu::CommandEncoder,
        policy: NonFinite,
        norms: &wgpu::Buffer,
        scope: OutcomeScope<'_>,
    ) -> Result<(), WsamError> {
        if !policy.checks_gradients() {
            self.submit(encoder);
            return Ok(());
        }
        let copy = self.engine.send(&mut encoder, norms)?;
        let (bridge, norms) = (bridge.clone(), norms.clone());
        let readback = OutcomeReadback { copy, norms, bridge, submission: self.submit(encoder) };
        let submitted =
            |ids: &[ParamId], readback| Submitted { ids: ids.to_vec(), policy, readback };
        match scope {
            OutcomeScope::Step(ids) => self.pending.push(submitted(ids, readback)),
            OutcomeScope::LeanFirst(ids, step) => {
                self.pending.push_lean(submitted(ids, readback), step)
            }
            OutcomeScope::LeanRest(step) => self.pending.complete(step, readback),
        }
        Ok(())
    }
}

/// Adds what a step asked of Burn.
pub(super) fn with_counts(bridge: &Bridge, in_place: bool, step: StepStats) -> StepStats {
    let counts = bridge.counts();
    let (tensors_made, server_calls) = (counts.tensors_made(), counts.server_calls());
    StepStats { in_place, tensors_made, server_calls, ..step }
}

/// Options for gradients of a loss that was multiplied by `1 / inv_scale`.
pub(super) fn scaled_by(inv_scale: f64, track_norms: bool) -> GradientOptions<'static> {
    GradientOptions { track_norms, inv_scale: InvScale::Host(inv_scale), ..Default::default() }
}

pub(super) fn ids(params: &[ResolvedParam]) -> Vec<ParamId> {
    params.iter().map(|param| param.id).collect()
}

pub(super) fn identities(tensors: &[DeviceTensor]) -> Vec<Option<u64>> {
    tensors.iter().map(identity).collect()
}
