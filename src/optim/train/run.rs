//! A running training, which takes optimizer steps over one batch or over accumulated ones.

use super::error::WsamTrainingError;
use super::options::{LossOf, StepOptions};
use super::report::{TrainingStep, one_pass_report, report};
use super::schedule::{Schedule, StepInfo};
use super::shared::{Mode, Shared};
use super::weights::{frozen_in_front, trainable, weights};
use crate::method::{Method, Passes};
use crate::optim::ascended::Ascended;
use crate::optim::error::WsamError;
use crate::optim::options::Perturbation;
use crate::optim::pass::{Sum, check_loss_shape, copied};
use crate::optim::pass_schedule::{NextStep, StepKind};
use crate::optim::rates::Rates;
use crate::optim::report::StepReport;
use crate::optim::run_state::RunState;
use crate::optim::seeds::Masks;
use crate::optim::statistics::RunningStatistics;
use burn::module::ParamId;
use burn::optim::GradientsParams;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Tensor;
use burn::train::{Learner, LearnerModel, TrainOutput, TrainStep};
use std::sync::Arc;

pub(super) struct Run<'a, M: LearnerModel> {
    pub(super) shared: &'a Shared,
    pub(super) options: &'a StepOptions,
    loss: Option<&'a LossOf<M>>,
    pub(super) learner: Learner<M>,
    rho: Option<Schedule>,
    gamma: Option<Schedule>,
    steps: u64,
}

/// The micro-batches of one step.
pub(super) struct Window<M: LearnerModel> {
    at: StepInfo,
    /// Whether the method is active; if not, the base optimizer steps alone.
    pub(super) active: bool,
    /// Whether each micro-batch is perturbed along its own gradient.
    each: bool,
    /// Momentum-SAM's perturbed model, on which the only pass runs.
    pub(super) along_momentum: Option<Ascended<M>>,
    pub(super) first: Sum<M>,
    pub(super) second: Sum<M>,
    masks: Masks,
    /// Statistics before the first pass.
    statistics: RunningStatistics,
    /// Inputs for the second pass.
    items: Vec<<M as TrainStep>::Input>,
}

/// Runs the second pass of a window at a perturbed model, and adds its gradients to the window.
pub(super) type Second<'a, R, M> =
    dyn FnMut(&R, &M, &mut Window<M>) -> Result<(), WsamTrainingError> + 'a;

impl<M: LearnerModel> Window<M> {
    pub(super) fn len(&self) -> usize {
        self.first.len
    }
}

impl<'a, M: LearnerModel> Run<'a, M>
where
    <M as TrainStep>::Input: Clone,
{
    /// Starts a training, with the state that the learner has from a checkpoint.
    pub(super) fn begin(
        shared: &'a Shared,
        options: &'a StepOptions,
        loss: Option<&'a LossOf<M>>,
        learner: Learner<M>,
        is_resumed: bool,
    ) -> Result<Self, (M, WsamTrainingError)> {
        let (rho, gamma) = (options.rho.clone(), options.gamma.clone());
        let mut run = Self { shared, options, loss, learner, rho, gamma, steps: 0 };
        if is_resumed && let Err(error) = run.read_model() {
            return Err((run.learner.model(), error));
        }
        let model = run.learner.model();
        match run.take_over(&model) {
            Ok(()) => Ok(run),
            // Return the model from before: another optimizer may have stepped the learner's model.
            Err(error) => Err((model, error)),
        }
    }

    /// Reads all of a model from a checkpoint. On the CPU Burn reads frozen parameters lazily from the file,
    /// which the training may delete first.
    fn read_model(&mut self) -> Result<(), WsamTrainingError> {
        let failed = |error: RecordError| WsamError::Record { reason: error.to_string() };
        let bytes = self.learner.model().into_record().into_bytes().map_err(failed)?;
        self.learner.load_model(ModuleRecord::from_bytes(bytes).map_err(failed)?);
        Ok(())
    }

    /// Passes the model's current weights through the learner's optimizer, which collects the states from a
    /// checkpoint, and loads these states.
    fn take_over(&mut self, model: &M) -> Result<(), WsamTrainingError> {
        if self.shared.wsam().scales_losses() {
            return Err(WsamError::LossScale.into());
        }
        if let Some((frozen, trainable)) = frozen_in_front(model) {
            return Err(WsamTrainingError::FrozenInFront { frozen, trainable });
        }
        let trainable = trainable(model);
        let current = weights(model, |id| trainable.contains(&id));
        let sent = current.len();
        let closed = self.hand_over(current, Mode::Collecting { taken: 0, found: Vec::new() });
        let Mode::Collecting { taken, found } = closed else {
            return Err(WsamTrainingError::NotTaken { sent, taken: 0 });
        };
        if taken != sent {
            return Err(WsamTrainingError::NotTaken { sent, taken });
        }
        self.steps = found.iter().filter_map(|loaded| loaded.steps).max().unwrap_or(0);
        let mut training = self.shared.training();
        training.steps = Some(self.steps);
        training.record_owner = trainable.iter().copied().min_by_key(ParamId::val);
        drop(training);
        if let Some(newest) = found.iter().max_by_key(|loaded| loaded.steps) {
            let values = &newest.state.scalars;
            let find = |name: &str| values.iter().find(|(field, _)| *field == name);
            let run = RunState::from_scalars(|name| find(name).map(|(_, value)| *value))?;
            let states = found.into_iter().map(|loaded| (loaded.id, loaded.state.clone()));
            let (mut wsam, states) = (self.shared.wsam(), states.collect());
            match wsam.burn_optimizer() {
                None => wsam.load_recorded(model, states, run)?,
                Some(_) => wsam.load_recorded_burn_base(model, states, run)?,
            }
        }
        let after = |schedule: &Option<Schedule>| schedule.as_ref().map(|s| s.after(self.steps));
        (self.rho, self.gamma) = (after(&self.options.rho), after(&self.options.gamma));
        Ok(())
    }

    /// Opens the window of the next step, and sets the scheduled values.
    pub(super) fn open(
        &mut self,
        epoch: usize,
        accumulation: usize,
    ) -> Result<Window<M>, WsamTrainingError> {
        let at = StepInfo { epoch, step: self.steps };
        let mut wsam = self.shared.wsam();
        if let Some(rho) = &mut self.rho {
            wsam.set_rho(rho.next(at))?;
        }
        if let Some(gamma) = &mut self.gamma {
            wsam.set_gamma(gamma.next(at))?;
        }
        let active = self.options.active.as_ref().is_none_or(|active| active(at));
        let mut each =
            accumulation > 1 && self.options.perturbation == Perturbation::EachMicroBatch;
        if each {
            wsam.check_perturbation(self.options.perturbation)?;
        }
        // Only these methods of perturbing must know how the step is taken before its first pass.
        let mut along_momentum = None;
        if active && (each || wsam.hyperparameters().method == Method::MomentumSam) {
            match wsam.next_kind()? {
                StepKind::TwoPasses => {}
                StepKind::OnePass | StepKind::Base => each = false,
                StepKind::AlongMomentum => {
                    along_momentum = Some(wsam.ascend_along_momentum(self.learner.model())?);
                }
            }
        }
        Ok(Window {
            at,
            active,
            each,
            along_momentum,
            first: Sum::default(),
            second: Sum::default(),
            masks: wsam.masks()?,
            statistics: RunningStatistics::of(&self.learner.model()),
            items: Vec::new(),
        })
    }

    /// The first pass over a batch; with m-sharpness the second one too.
    pub(super) fn pass(
        &mut self,
        window: &mut Window<M>,
        item: <M as TrainStep>::Input,
    ) -> Result<<M as TrainStep>::Output, WsamTrainingError> {
        let output = self.pass_over(window, item);
        if output.is_err() {
            self.restore_statistics(window);
        }
        output
    }

    fn pass_over(
        &mut self,
        window: &mut Window<M>,
        item: <M as TrainStep>::Input,
    ) -> Result<<M as TrainStep>::Output, WsamTrainingError> {
        if let Some(ascended) = &window.along_momentum {
            window.masks.before(ascended.model(), window.first.len)?;
            let TrainOutput { grads, item: output } = TrainStep::step(ascended.model(), item);
            let loss = self.loss_of(&output)?;
            window.first.add(ascended.model(), grads, loss);
            return Ok(output);
        }
        if window.active {
            window.items.push(item.clone());
        }
        window.masks.before(&self.learner.model(), window.first.len)?;
        let TrainOutput { grads, item: output } = self.learner.train_step(item);
        let loss = self.loss_of(&output)?;
        if !(window.active && window.each) {
            window.first.add(&self.learner.model(), grads, loss);
            return Ok(output);
        }
        let model = self.learner.model();
        window.first.add(&model, copied(&model, &grads), loss);
        let ascended = self.shared.wsam().ascend(model, grads)?;
        self.second(ascended.model(), window)?;
        // The learner still has the model, so the restored one is dropped.
        drop(ascended.restore());
        Ok(output)
    }

    /// The loss in the output of a pass, if the strategy knows it.
    pub(super) fn loss_of(
        &self,
        output: &<M as TrainStep>::Output,
    ) -> Result<Option<Tensor<1>>, WsamTrainingError> {
        let loss = self.loss.map(|loss| loss(output));
        loss.as_ref().map_or(Ok(()), check_loss_shape)?;
        Ok(loss)
    }

    /// Restores running statistics after an error. The learner's model shares them with its clones.
    pub(super) fn restore_statistics(&self, window: &Window<M>) {
        drop(window.statistics.restore(self.learner.model()));
    }

    /// The second pass, over all queued batches.
    fn second(&self, perturbed: &M, window: &mut Window<M>) -> Result<(), WsamTrainingError> {
        for item in window.items.drain(..) {
            window.masks.before(perturbed, window.second.len)?;
            let TrainOutput { grads, item } = TrainStep::step(perturbed, item);
            let loss = self.loss_of(&item)?;
            window.second.add(perturbed, grads, loss);
        }
        Ok(())
    }

    /// Takes the step over the batches in the window.
    pub(super) fn step(
        &mut self,
        window: Window<M>,
        iteration: usize,
    ) -> Result<(), WsamTrainingError> {
        self.step_with(window, iteration, &mut |run, perturbed, window| {
            run.second(perturbed, window)
        })
    }

    /// Takes the step over the window, whose second pass is `second`.
    pub(super) fn step_with(
        &mut self,
        mut window: Window<M>,
        iteration: usize,
        second: &mut Second<'_, Self, M>,
    ) -> Result<(), WsamTrainingError> {
        let taken = self.step_over(&mut window, iteration, second);
        if taken.is_err() {
            self.restore_statistics(&window);
            return taken;
        }
        let (wsam, model) = (self.shared.wsam(), self.learner.model());
        drop(wsam.restore_statistics_if_skipped(model, &window.statistics)?);
        Ok(())
    }

    fn step_over(
        &mut self,
        window: &mut Window<M>,
        iteration: usize,
        second: &mut Second<'_, Self, M>,
    ) -> Result<(), WsamTrainingError> {
        self.learner.lr_step();
        let rates = Rates::new(self.learner.lr_current())?;
        let (grads, loss) = std::mem::take(&mut window.first).take();
        let kind = match (window.active, &window.along_momentum) {
            (false, _) => StepKind::Base,
            (true, Some(_)) => StepKind::AlongMomentum,
            (true, None) => self.shared.wsam().next_kind()?,
        };
        let model = self.learner.model();
        let (model, report) = if !window.active {
            (self.shared.wsam().base_step(rates.burn(), model, grads)?, None)
        } else if let Some(ascended) = window.along_momentum.take() {
            let (model, norms) = self.shared.wsam().descend_reported(&rates, ascended, grads)?;
            (model, one_pass_report(loss, norms))
        } else if kind.next_step() == NextStep::OnePass {
            let mut wsam = self.shared.wsam();
            let (model, norms) = wsam.one_pass_at(&rates, model, grads, kind, true)?;
            (model, one_pass_report(loss, norms))
        } else if self.shared.wsam().is_lean() {
            drop(model);
            self.lean(&rates, grads, loss, window, second)?
        } else {
            drop(model);
            let ascended = self.shared.wsam().ascend(self.learner.model(), grads)?;
            second(self, ascended.model(), window)?;
            let (grads, perturbed_loss) = std::mem::take(&mut window.second).take();
            let (model, norms) = self.shared.wsam().descend_reported(&rates, ascended, grads)?;
            (model, report(loss, perturbed_loss, norms))
        };
        self.deliver(model)?;
        self.record_step(window.at, kind, rates.base(), report, iteration);
        Ok(())
    }

    fn lean(
        &mut self,
        rates: &Rates,
        grads: GradientsParams,
        loss: Option<Tensor<1>>,
        window: &mut Window<M>,
        second: &mut Second<'_, Self, M>,
    ) -> Result<(M, Option<StepReport>), WsamTrainingError> {
        let ascended = self.shared.wsam().lean_ascend_at(rates, self.learner.model(), grads)?;
        // Replace the learner's weights now; while it keeps the old ones, lean mode saves no memory.
        self.deliver(ascended.anchor.clone())?;
        second(self, ascended.model(), window)?;
        let (grads, perturbed_loss) = std::mem::take(&mut window.second).take();
        let (model, norms) = self.shared.wsam().lean_descend_reported(ascended, grads)?;
        Ok((model, report(loss, perturbed_loss, norms)))
    }

    /// Assigns the weights of `model` to the learner's model.
    fn deliver(&mut self, model: M) -> Result<(), WsamTrainingError> {
        let new = {
            let wsam = self.shared.wsam();
            match wsam.burn_optimizer() {
                None => weights(&model, |id| wsam.has_state(id)),
                // A Burn optimizer does not expose which parameters have a state, so pass all trainable ones.
                Some(_) => {
                    let trainable = trainable(&model);
                    weights(&model, |id| trainable.contains(&id))
                }
            }
        };
        drop(model);
        let sent = new.len();
        match self.hand_over(new, Mode::Delivering { taken: 0 }) {
            Mode::Delivering { taken } if taken == sent && sent > 0 => Ok(()),
            Mode::Delivering { taken } => Err(WsamTrainingError::NotTaken { sent, taken }),
            _ => Err(WsamTrainingError::NotTaken { sent, taken: 0 }),
        }
    }

    /// Passes weights through the learner's optimizer, and returns the mode with its results.
    fn hand_over(&mut self, weights: GradientsParams, mode: Mode) -> Mode {
        self.shared.training().mode = mode;
        self.learner.optimizer_step(weights);
        std::mem::take(&mut self.shared.training().mode)
    }

    fn record_step(
        &mut self,
        at: StepInfo,
        kind: StepKind,
        lr: f64,
        report: Option<StepReport>,
        iteration: usize,
    ) {
        self.steps += 1;
        let (rho, gamma) = {
            let wsam = self.shared.wsam();
            (wsam.hyperparameters().rho, wsam.hyperparameters().gamma)
        };
        let mut training = self.shared.training();
        if let Some(sharpness) = report.as_ref().and_then(StepReport::sharpness) {
            training.sharpness.push(iteration, sharpness);
        }
        training.steps = Some(self.steps);
        let perturbed = kind != StepKind::Base;
        let passes = if kind == StepKind::TwoPasses { Passes::Two } else { Passes::One };
        let step = TrainingStep { at, lr, rho, gamma, perturbed, passes, report };
        training.last = Some(Arc::new(step));
    }
}
