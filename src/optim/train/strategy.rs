//! The training loop of Burn's single-device strategy, with WSAM's steps.
//!
//! Burn's loop does not support custom steps, so this loop raises the same events in the same order.

use super::devices::Devices;
use super::options::{LossOf, StepOptions};
use super::run::Run;
use super::shared::Shared;
use super::weights::has_quantised;
use burn::data::dataloader::split::split_dataloader;
use burn::tensor::Device;
use burn::train::{
    EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent, LearnerModel,
    SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader, TrainStep,
    TrainingComponents, TrainingItem, ValidLoader,
};
use std::sync::Arc;

pub(super) struct Strategy<M: LearnerModel> {
    shared: Arc<Shared>,
    options: StepOptions,
    loss: Option<Box<LossOf<M>>>,
}

impl<M: LearnerModel> Strategy<M> {
    pub(super) fn new(
        shared: Arc<Shared>,
        options: StepOptions,
        loss: Option<Box<LossOf<M>>>,
    ) -> Self {
        Self { shared, options, loss }
    }
}

impl<M: LearnerModel> SupervisedLearningStrategy<M> for Strategy<M>
where
    <M as TrainStep>::Input: Clone,
{
    fn fit(
        &self,
        components: TrainingComponents<M>,
        mut learner: Learner<M>,
        train: TrainLoader<M>,
        valid: ValidLoader<M>,
        starting_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<M>) {
        let TrainingComponents {
            num_epochs,
            mut checkpointer,
            grad_accumulation,
            interrupter,
            mut early_stopping,
            mut event_processor,
            event_store,
            ..
        } = components;
        let shared = &*self.shared;
        let device = shared.device_for(&learner.model());
        let valid = valid.to_device(&device.clone().inner());
        let total_items = train.num_items();
        let (train, mut devices) = match &self.options.devices {
            None => (vec![train.to_device(&device)], None),
            Some(devices) => {
                let devices: Vec<_> = devices.iter().map(with_autodiff).collect();
                (split_dataloader(train, &devices), Some(devices))
            }
        };
        // Burn's `fork` converts quantised parameters to `f32`, so skip it if the model is on the device already.
        let model = learner.model();
        if !has_quantised(&model) || model.devices() != [device.clone()] {
            learner.fork(&device);
        }
        drop(model);
        shared.begin(&interrupter);
        let is_resumed = starting_epoch > 1;
        let run = Run::begin(shared, &self.options, self.loss.as_deref(), learner, is_resumed);
        let mut run = match run {
            Ok(run) => run,
            Err((model, error)) => {
                shared.fail(error);
                return (model, event_processor);
            }
        };
        let mut splits = Splits { events: &mut event_processor, interrupter: &interrupter };
        let devices = devices.take().map(|devices| Devices::new(&devices, self.options.timeout));
        let mut devices = match devices.transpose() {
            Ok(devices) => devices,
            Err(error) => {
                shared.fail(error);
                return (run.learner.model(), event_processor);
            }
        };
        for epoch in starting_epoch..=num_epochs {
            splits.start(epoch, total_items);
            match &mut devices {
                None => splits.train(&mut run, &train[0], epoch, grad_accumulation),
                Some(devices) => {
                    splits.train_on(devices, &mut run, &train, epoch, grad_accumulation);
                }
            }
            splits.end(epoch);
            if interrupter.should_stop() {
                if let Some(interruption) = interrupter.interruption() {
                    let reason = interruption.reason.as_deref().unwrap_or("reason unknown");
                    log::info!("Training interrupted: {reason}");
                }
                break;
            }
            splits.validate(&run.learner, &valid, epoch);
            splits.end_epoch(epoch, checkpointer.is_some() || early_stopping.is_some());
            if interrupter.should_stop() {
                break;
            }
            if let Some(checkpointer) = &mut checkpointer {
                checkpointer.checkpoint(&run.learner, epoch, &event_store);
            }
            if let Some(early_stopping) = &mut early_stopping
                && early_stopping.should_stop(epoch, &event_store)
            {
                break;
            }
        }
        (run.learner.model(), event_processor)
    }
}

/// The parts of an epoch.
pub(super) struct Splits<'a, M: LearnerModel> {
    events: &'a mut SupervisedTrainingEventProcessor<M>,
    pub(super) interrupter: &'a Interrupter,
}

fn with_autodiff(device: &Device) -> Device {
    if device.is_autodiff() { device.clone() } else { device.clone().autodiff() }
}

type TrainEvent<M> = LearnerEvent<<M as TrainStep>::Output>;
type ValidEvent<M> = LearnerEvent<<M as InferenceStep>::Output>;

impl<M: LearnerModel> Splits<'_, M>
where
    <M as TrainStep>::Input: Clone,
{
    fn train(
        &mut self,
        run: &mut Run<'_, M>,
        loader: &TrainLoader<M>,
        epoch: usize,
        accumulation: Option<usize>,
    ) {
        let accumulation = accumulation.unwrap_or(1);
        let mut items = loader.iter();
        let mut iteration = 0;
        let mut window = None;
        while let Some(item) = items.next() {
            let item = match item {
                Ok(item) => item,
                Err(error) => {
                    self.interrupter.fail(error);
                    break;
                }
            };
            iteration += 1;
            let progress = items.progress();
            // Batches left in the window at the end of an epoch are a step too. If the loader does not report its
            // end, they are dropped, as in Burn's loop.
            let pass = || {
                let mut open = match window.take() {
                    Some(open) => open,
                    None => run.open(epoch, accumulation)?,
                };
                let output = run.pass(&mut open, item)?;
                if accumulation <= open.len() || progress.is_completed() {
                    run.step(open, iteration)?;
                } else {
                    window = Some(open);
                }
                Ok(output)
            };
            let output = match pass() {
                Ok(output) => output,
                Err(error) => {
                    run.shared.fail(error);
                    break;
                }
            };
            let lr = Some(run.learner.lr_current());
            let item = TrainingItem::new(output, progress, Some(iteration), lr);
            self.trained(LearnerEvent::ProcessedItem(item));
            if self.interrupter.should_stop() {
                break;
            }
        }
    }

    fn start(&mut self, epoch: usize, total_items: usize) {
        log::info!("Executing training step for epoch {epoch}");
        self.trained(LearnerEvent::StartSplit { epoch_number: epoch, total_items });
    }

    fn end(&mut self, epoch: usize) {
        self.trained(LearnerEvent::EndSplit(epoch));
    }

    fn validate(&mut self, learner: &Learner<M>, loader: &ValidLoader<M>, epoch: usize) {
        log::info!("Executing validation step for epoch {epoch}");
        let total_items = loader.num_items();
        self.validated(LearnerEvent::StartSplit { epoch_number: epoch, total_items });
        let model = learner.model().valid();
        let mut items = loader.iter();
        let mut iteration = 0;
        while let Some(item) = items.next() {
            let item = match item {
                Ok(item) => item,
                Err(error) => {
                    self.interrupter.fail(error);
                    break;
                }
            };
            let progress = items.progress();
            iteration += 1;
            let output = InferenceStep::step(&model, item);
            let item = TrainingItem::new(output, progress, Some(iteration), None);
            self.validated(LearnerEvent::ProcessedItem(item));
            if self.interrupter.should_stop() {
                break;
            }
        }
        self.validated(LearnerEvent::EndSplit(epoch));
    }

    fn end_epoch(&mut self, epoch: usize, flush: bool) {
        self.trained(LearnerEvent::EndEpoch(epoch));
        if flush {
            self.interrupter.fail_on_error(self.events.flush());
        }
    }

    pub(super) fn trained(&mut self, event: TrainEvent<M>) {
        self.interrupter.fail_on_error(self.events.process_train(event));
    }

    fn validated(&mut self, event: ValidEvent<M>) {
        self.interrupter.fail_on_error(self.events.process_valid(event));
    }
}
