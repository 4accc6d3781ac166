//! The step through the engine: which buffers go where.
//!
//! Burn's tensors are never written. The ascent writes `w + e_w` and the descent the new weights
//! into arenas of their own, so `w` is its own anchor: restoring it is exact and free, and a clone
//! of the model that the user keeps never changes. State lives in arenas only this optimizer has.

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
use burn::tensor::{Bool, Device, Shape, Tensor};
use resolve::ResolvedParam;
use std::collections::HashMap;
use std::mem::offset_of;
use std::sync::Arc;

/// Steps after which the place of a weight that took part in none of them is forgotten. It costs a
/// look-up if it comes back.
const REMEMBERED_STEPS: u64 = 16;

/// The fused route of one optimizer.
#[derive(Debug)]
pub(crate) struct Fused {
    /// A fork: its plans, and the buffers they keep alive, go with the optimizer.
    engine: Arc<Engine>,
    /// Where the weights of the last step are.
    weights: HashMap<ParamId, Weight>,
    /// Steps taken, of whatever model.
    steps: u64,
    states: HashMap<ParamId, State>,
    last_step: Option<StepStats>,
    pending: PendingOutcomes<OutcomeReadback>,
}

/// A copy of a step's norms, and the submission that makes it.
#[derive(Debug)]
struct OutcomeReadback {
    copy: wgpu::Buffer,
    /// The norms themselves.
    norms: wgpu::Buffer,
    submission: wgpu::SubmissionIndex,
}

/// Which part of a step a submission decides.
#[derive(Clone, Copy)]
enum Decides<'a> {
    /// All of it, counted by these parameters.
    Step(&'a [ParamId]),
    /// The first half of a lean step.
    LeanFirst(&'a [ParamId], &'a LeanStep),
    /// The rest of it.
    LeanRest(&'a LeanStep),
}

#[derive(Debug)]
struct Weight {
    /// The [`identity`] of the tensor that the last step made: a parameter with another one has
    /// another value.
    tensor: u64,
    memory: Memory,
    /// When that was, by [`Fused::steps`].
    placed: u64,
}

#[derive(Debug)]
struct State {
    step: u64,
    len: u64,
    /// In the order of [`Base::state_names`].
    memory: Vec<Memory>,
    /// Of a parameter in half precision: those that the weights of the last step are a copy of.
    master: Option<Memory>,
    bridge: Bridge,
}

/// What an ascent keeps for its descent.
#[derive(Debug)]
pub(crate) struct AscentState {
    bridge: Bridge,
    ascent: Ascent,
    params: Vec<ResolvedParam>,
    weights: Vec<DeviceTensor>,
    /// Where they are not the weights themselves.
    perturbed: Vec<DeviceTensor>,
}

/// What a mix keeps for its sharpness step.
#[derive(Debug)]
pub(crate) struct MixState {
    bridge: Bridge,
    ascent: Ascent,
    params: Vec<ResolvedParam>,
    grads_perturbed: Vec<Memory>,
    /// None where the base optimizer steps on `g` as it is.
    mix: Option<Mix>,
}

/// What a lean ascent keeps: neither weights nor gradients.
#[derive(Debug)]
pub(crate) struct LeanAscentState {
    bridge: Bridge,
    ascent: LeanAscent,
    ids: Vec<ParamId>,
    groups: Vec<usize>,
    shapes: Vec<Shape>,
    /// The base optimizer's step, taken, and the term in `g`.
    stepped: Vec<Memory>,
    perturbed: Vec<DeviceTensor>,
    /// Where those are.
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
        if !self.policy.looks() {
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

    /// Forgets where the weights are, so that their memory is the model's alone.
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

    /// How a step rounds `w + e_w` to half precision.
    fn rounding(context: StepContext<'_>) -> Rounding {
        match context.rounding_seed {
            Some(seed) => Rounding::Stochastic { seed },
            None => Rounding::Nearest,
        }
    }

    /// Rooms for the state that parameters need for their first step, by state.
    ///
    /// All first states, then all second ones: neighbours in a dispatch, neighbours in memory.
    fn new_states(
        &self,
        base: &Base,
        parameters: impl Iterator<Item = (ParamId, u64)>,
    ) -> Vec<Vec<AllocSpec>> {
        let new = parameters.filter(|(id, _)| !self.states.contains_key(id));
        let new: Vec<_> = new.map(|(_, len)| AllocSpec::single(len)).collect();
        vec![new; base.state_names().len()]
    }

    /// Step counts and states. A first step ignores what is in its fresh memory.
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
            let known = self.states.entry(param.id).and_modify(|state| {
                state.step = step;
                state.master.clone_from(&master);
            });
            known.or_insert_with(|| State { step, len, memory, master, bridge: bridge.clone() });
        }
    }

    /// Notes where the weights are that the step made, by their [`identity`].
    fn place(&mut self, ids: &[ParamId], tensors: &[Option<u64>], memory: Vec<Memory>) {
        self.steps += 1;
        let placed = self.steps;
        for ((id, tensor), memory) in ids.iter().zip(tensors).zip(memory) {
            if let Some(tensor) = *tensor {
                self.weights.insert(*id, Weight { tensor, memory, placed });
            }
        }
        // One weight holds a whole arena: those of a model that is gone must not hold it for ever.
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

    /// Submits the half that decides a step, and notes where its outcome will be found.
    fn submit_and_track(
        &mut self,
        mut encoder: wgpu::CommandEncoder,
        policy: NonFinite,
        norms: &wgpu::Buffer,
        decides: Decides<'_>,
    ) -> Result<(), WsamError> {
        if !policy.looks() {
            self.submit(encoder);
            return Ok(());
        }
        let copy = self.engine.send(&mut encoder, norms)?;
        let readback =
            OutcomeReadback { copy, norms: norms.clone(), submission: self.submit(encoder) };
        let submitted =
            |ids: &[ParamId], readback| Submitted { ids: ids.to_vec(), policy, readback };
        match decides {
            Decides::Step(ids) => self.pending.push(submitted(ids, readback)),
            Decides::LeanFirst(ids, step) => self.pending.push_lean(submitted(ids, readback), step),
            Decides::LeanRest(step) => self.pending.complete(step, readback),
        }
        Ok(())
    }

    /// Whether the step that was submitted last is skipped, as a tensor of Burn's: copied on the device.
    fn skipped_on_device(&self, device: &Device) -> Result<Option<Tensor<1, Bool>>, WsamError> {
        let Some((readback, policy, lean)) = self.pending.latest_readback() else {
            return Ok(None);
        };
        let words = size_of::<layout::Norms>() / size_of::<f32>();
        let bridge = Bridge::new(&OnDevice::from_tensor(Tensor::<1>::zeros([1], device))?);
        let arenas = vec![vec![AllocSpec::single(words as u64)]];
        let shape = Shape::from([words]);
        let (made, resolving) =
            bridge.resolve(Vec::new(), arenas, Vec::new(), std::slice::from_ref(&shape));
        let arena = resolving.finish()?.arenas.into_iter().flatten().next();
        let (Some(Memory { slice, .. }), Some(made)) = (arena, made.into_iter().next()) else {
            return Err(WsamError::Backend { reason: "there is no memory for a flag".to_owned() });
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
        let bad_gradient = is_bad(offset_of!(layout::Norms, bad_gradient));
        // A lean step is skipped by its first gradient alone; BaseStep takes a step on `g`.
        let by_first = lean || policy == NonFinite::BaseStep;
        Ok(Some(match by_first {
            true => bad_gradient,
            false => bad_gradient.bool_or(is_bad(offset_of!(layout::Norms, bad_perturbed))),
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
