//! The fused route: runs steps through the engine, on the buffers of Burn's tensors.
//!
//! The engine never writes to existing Burn tensors. The ascent writes `w + e_w`, and the descent the new
//! weights, into new arenas. `w` stays unchanged, so restoring it needs no copy, and a clone of the model that
//! the user keeps never changes. State is stored in arenas that only this optimizer uses.

mod external;
mod masters;
mod resolve;
mod steps;

use super::bridge::{AllocSpec, Bridge, DeviceTensor, Memory, OnDevice};
use super::device::Shared;
use super::error::WsamError;
use super::forms::TensorLayout;
use super::pending::{Finite, LeanStep, PendingOutcomes, Submitted};
use super::report::Norms;
use super::state::{OptimizerState, read, state_names};
use super::step_backend::{StepBackend, StepContext};
use crate::engine::{Ascent, Engine, LeanAscent, Mix, Rounding, StepStats, norms_of};
use crate::layout;
use crate::method::{Base, Hyperparameters, NonFinite, Outcome};
use burn::module::ParamId;
use burn::tensor::{Bool, Shape, Tensor};
use resolve::ResolvedParam;
use std::collections::HashMap;
use std::mem::offset_of;
use std::sync::Arc;

/// Number of steps without a weight after which its stored memory location is dropped. If the weight takes part
/// again, the next step looks the location up.
const REMEMBERED_STEPS: u64 = 16;

/// The fused route of one optimizer.
#[derive(Debug)]
pub(crate) struct Fused {
    /// A fork of the device's engine, so that its plans and their buffers are dropped with the optimizer.
    engine: Arc<Engine>,
    /// Memory of the weights after each parameter's last step.
    weights: HashMap<ParamId, PlacedWeight>,
    /// Steps taken, over all models.
    steps: u64,
    states: HashMap<ParamId, State>,
    last_step: Option<StepStats>,
    pending: PendingOutcomes<OutcomeReadback>,
}

/// A host-readable copy of a step's norms, and the submission that writes it.
#[derive(Debug)]
struct OutcomeReadback {
    copy: wgpu::Buffer,
    /// The norms buffer of the step.
    norms: wgpu::Buffer,
    bridge: Bridge,
    submission: wgpu::SubmissionIndex,
}

/// The part of a step whose outcome a submission decides.
#[derive(Clone, Copy)]
enum OutcomeScope<'a> {
    /// The whole step, counted by these parameters.
    Step(&'a [ParamId]),
    /// The first half of a lean step.
    LeanFirst(&'a [ParamId], &'a LeanStep),
    /// The second half of a lean step.
    LeanRest(&'a LeanStep),
}

#[derive(Debug)]
struct PlacedWeight {
    /// `identity` of the tensor that the last step made. If a parameter's tensor has a different identity, its
    /// value was changed outside the optimizer.
    tensor: u64,
    memory: Memory,
    /// Value of [`Fused::steps`] at that step.
    placed: u64,
}

#[derive(Debug)]
struct State {
    step: u64,
    len: u64,
    /// In the order of [`Base::state_names`].
    memory: Vec<Memory>,
    /// Master weights of a parameter in half precision, whose rounded copy the last step wrote to the weights.
    master: Option<Memory>,
    bridge: Bridge,
}

/// State between an ascent and its descent.
#[derive(Debug)]
pub(crate) struct AscentState {
    bridge: Bridge,
    ascent: Ascent,
    params: Vec<ResolvedParam>,
    weights: Vec<DeviceTensor>,
    /// Perturbed weights, of perturbed parameters only.
    perturbed: Vec<DeviceTensor>,
}

/// State between a mix and its sharpness step.
#[derive(Debug)]
pub(crate) struct MixState {
    bridge: Bridge,
    ascent: Ascent,
    params: Vec<ResolvedParam>,
    grads_perturbed: Vec<Memory>,
    /// `None` if the base optimizer steps on an unmodified `g`.
    mix: Option<Mix>,
}

/// State between a lean ascent and its descent. It holds neither weights nor gradients.
#[derive(Debug)]
pub(crate) struct LeanAscentState {
    bridge: Bridge,
    ascent: LeanAscent,
    ids: Vec<ParamId>,
    groups: Vec<usize>,
    shapes: Vec<Shape>,
    /// Weights after the base optimizer's step and the `g` term of the sharpness step.
    stepped: Vec<Memory>,
    perturbed: Vec<DeviceTensor>,
    /// Memory of the weights that the second pass runs on.
    ran_on: Vec<Memory>,
    step: LeanStep,
}

/// Norms of a step on the device.
#[derive(Debug)]
pub(crate) struct DeviceNorms {
    engine: Arc<Engine>,
    norms: wgpu::Buffer,
    has_gradient: bool,
    has_perturbed: bool,
    policy: NonFinite,
    lean: bool,
}

impl DeviceNorms {
    pub(crate) fn outcome(&self) -> Result<Outcome, WsamError> {
        if !self.policy.checks_gradients() {
            return Ok(Outcome::Whole);
        }
        let Finite { gradient, perturbed } = finite(&self.engine.read_norms(&self.norms)?);
        Ok(self.policy.outcome(self.lean, gradient, perturbed))
    }

    pub(crate) fn gradient(&self) -> Result<Option<f64>, WsamError> {
        let read = || Ok(f64::from(self.engine.read_norms(&self.norms)?.gradient));
        self.has_gradient.then(read).transpose()
    }

    pub(crate) fn perturbed(&self) -> Result<Option<f64>, WsamError> {
        let read = || Ok(f64::from(self.engine.read_norms(&self.norms)?.perturbed));
        self.has_perturbed.then(read).transpose()
    }
}

impl Fused {
    pub(crate) fn new(shared: &Shared) -> Result<Self, WsamError> {
        Ok(Self {
            engine: Arc::new(shared.engine.fork()?),
            weights: HashMap::new(),
            steps: 0,
            states: HashMap::new(),
            last_step: None,
            pending: PendingOutcomes::default(),
        })
    }

    pub(crate) fn last_step(&self) -> Option<StepStats> {
        self.last_step
    }

    /// Drops the stored locations of the weights, so that only the model refers to their memory.
    pub(crate) fn forget_places(&mut self) {
        self.weights.clear();
        self.engine.forget_plans();
    }

    fn norms(
        &self,
        hyper: &Hyperparameters,
        track_norms: bool,
        lean: bool,
        norms: &wgpu::Buffer,
    ) -> Norms {
        Norms::Fused(Box::new(DeviceNorms {
            engine: self.engine.clone(),
            norms: norms.clone(),
            has_gradient: hyper.perturbs_by_gradient_norm()
                || hyper.clips_gradient()
                || track_norms,
            has_perturbed: hyper.clip.is_some() || track_norms,
            policy: hyper.non_finite,
            lean,
        }))
    }

    /// Rounding of `w + e_w` to half precision.
    fn rounding(context: StepContext<'_>) -> Rounding {
        match context.rounding_seed {
            Some(seed) => Rounding::Stochastic { seed },
            None => Rounding::Nearest,
        }
    }

    /// Specs of the state of parameters that have no state yet, one list for each state.
    ///
    /// Each list becomes an arena, so that the tensors that one binding of a dispatch covers are adjacent in
    /// memory.
    fn new_states(
        &self,
        base: &Base,
        parameters: impl Iterator<Item = (ParamId, u64)>,
    ) -> Vec<Vec<AllocSpec>> {
        let new = parameters.filter(|(id, _)| !self.states.contains_key(id));
        let new: Vec<_> = new.map(|(_, len)| AllocSpec::single(len)).collect();
        vec![new; base.state_names().len()]
    }

    /// Step counts and states. A first step does not read its uninitialised memory.
    fn stepping(&self, ids: &[ParamId], fresh: Vec<Vec<Memory>>) -> Vec<(u64, Vec<Memory>)> {
        let mut fresh: Vec<_> = fresh.into_iter().map(Vec::into_iter).collect();
        let stepping = ids.iter().map(|id| match self.states.get(id) {
            Some(state) => (state.step + 1, state.memory.clone()),
            None => (1, fresh.iter_mut().filter_map(Iterator::next).collect()),
        });
        stepping.collect()
    }

    fn advance(
        &mut self,
        bridge: &Bridge,
        params: &[ResolvedParam],
        stepped: Vec<(u64, Vec<Memory>)>,
    ) {
        for (param, (step, memory)) in params.iter().zip(stepped) {
            let (len, master) = (param.len, param.master.clone());
            let state = self.states.entry(param.id).and_modify(|state| {
                state.step = step;
                state.master.clone_from(&master);
            });
            state.or_insert_with(|| State { step, len, memory, master, bridge: bridge.clone() });
        }
    }

    /// Stores the locations of the weights that the step made, with their `identity`.
    fn place(&mut self, ids: &[ParamId], tensors: &[Option<u64>], memory: Vec<Memory>) {
        self.steps += 1;
        let placed = self.steps;
        for ((id, tensor), memory) in ids.iter().zip(tensors).zip(memory) {
            if let Some(tensor) = *tensor {
                self.weights.insert(*id, PlacedWeight { tensor, memory, placed });
            }
        }
        // One weight keeps a whole arena alive, so drop the weights of models that are no longer trained.
        self.weights.retain(|_, weight| placed - weight.placed < REMEMBERED_STEPS);
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        let label = Some("wsam");
        self.engine.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label })
    }

    fn count(&mut self, ascent: StepStats, descent: StepStats) {
        let mut step = ascent;
        step += descent;
        step.submissions += 2;
        self.last_step = Some(step);
    }

    fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        self.engine.queue().submit([encoder.finish()])
    }

    /// Submits work that decides a step's outcome, and queues the outcome to be read later.
    fn submit_and_track(
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

    /// Whether the last submitted step is skipped, as a Burn tensor. Copied on the device.
    fn skipped_on_device(&self) -> Result<Option<Tensor<1, Bool>>, WsamError> {
        let Some((readback, policy, lean)) = self.pending.latest_readback() else {
            return Ok(None);
        };
        let words = size_of::<layout::Norms>() / size_of::<f32>();
        let bridge = &readback.bridge;
        let arenas = vec![vec![AllocSpec::single(words as u64)]];
        let shape = Shape::from([words]);
        let (made, resolving) =
            bridge.resolve(Vec::new(), arenas, Vec::new(), std::slice::from_ref(&shape));
        let arena = resolving.finish()?.arenas.into_iter().flatten().next();
        let (Some(Memory { slice, .. }), Some(made)) = (arena, made.into_iter().next()) else {
            return Err(WsamError::Backend {
                reason: "Burn allocated no memory for the skip flag".to_owned(),
            });
        };
        let mut encoder = self.encoder();
        let bytes = size_of::<layout::Norms>() as u64;
        encoder.copy_buffer_to_buffer(&readback.norms, 0, &slice.buffer, slice.offset, bytes);
        self.submit(encoder);
        let norms: Tensor<1> = OnDevice::into_tensor(made, shape);
        let is_bad = |offset: usize| {
            let word = offset / size_of::<f32>();
            norms.clone().narrow(0, word, 1).not_equal_elem(0.0)
        };
        let bad_gradient = is_bad(offset_of!(layout::Norms, nonfinite_gradient));
        // Only `g` decides whether a lean step, or a step under BaseStep, is skipped.
        let by_first = lean || policy == NonFinite::BaseStep;
        Ok(Some(match by_first {
            true => bad_gradient,
            false => bad_gradient.bool_or(is_bad(offset_of!(layout::Norms, nonfinite_perturbed))),
        }))
    }

    #[cfg(feature = "train")]
    pub(crate) fn has_state(&self, id: ParamId) -> bool {
        self.states.get(&id).is_some_and(|state| state.step > 0)
    }

    /// A parameter's state, read back.
    pub(crate) fn state(
        &self,
        base: &Base,
        id: ParamId,
    ) -> Result<Option<OptimizerState>, WsamError> {
        let Some(state) = self.states.get(&id) else { return Ok(None) };
        let step = state.step.saturating_sub(self.overcount(Some(id))?);
        if step == 0 {
            return Ok(None);
        }
        let shape = Shape::from([state.len as usize]);
        let memory: Vec<_> = state.memory.iter().chain(&state.master).cloned().collect();
        let shapes = vec![shape.clone(); memory.len()];
        let tensors = state.bridge.tensors(&memory, &shapes);
        let data =
            tensors.into_iter().map(|tensor| read(OnDevice::into_tensor(tensor, shape.clone())));
        let data = data.collect::<Result<Vec<_>, _>>()?;
        let tensors = state_names(base).zip(data).collect();
        Ok(Some(OptimizerState { step, tensors }))
    }
}

impl OutcomeReadback {
    /// Waits for the submission.
    fn read(&self, engine: &Engine) -> Result<Finite, WsamError> {
        let bytes = engine.receive(&self.copy, self.submission.clone())?;
        Ok(finite(&norms_of(&bytes)?))
    }
}

fn finite(norms: &layout::Norms) -> Finite {
    Finite { gradient: norms.gradient_is_finite(), perturbed: norms.perturbed_is_finite() }
}
