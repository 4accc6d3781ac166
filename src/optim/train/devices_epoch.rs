//! An epoch on several devices.

use super::devices::{Devices, Input, Items};
use super::run::Run;
use super::strategy::Splits;
use burn::train::{LearnerEvent, LearnerModel, TrainLoader, TrainingItem};

impl<M: LearnerModel + 'static> Splits<'_, M>
where
    Input<M>: Clone,
{
    /// An epoch on several devices, with Burn's events in the order of its own strategy. If gradients are
    /// accumulated, the events of all batches of a step follow the step.
    pub(super) fn train_on(
        &mut self,
        devices: &mut Devices<M>,
        run: &mut Run<'_, M>,
        loaders: &[TrainLoader<M>],
        epoch: usize,
        accumulation: Option<usize>,
    ) {
        let accumulation = accumulation.unwrap_or(1);
        let mut iterators: Vec<_> = loaders.iter().map(|loader| loader.iter()).collect();
        let (mut iteration, mut rounds) = (0, 0);
        let (mut items, mut progresses): (Items<M>, Vec<_>) = (Vec::new(), Vec::new());
        loop {
            let mut progress = burn::data::dataloader::Progress::new(0, 0, Some("items".into()));
            let before = items.len();
            for (place, iterator) in iterators.iter_mut().enumerate() {
                match iterator.next() {
                    Some(Ok(item)) => items.push((place, item)),
                    Some(Err(error)) => return self.interrupter.fail(error),
                    None => (),
                }
                let of_device = iterator.progress();
                progress.items_processed += of_device.items_processed;
                progress.items_total += of_device.items_total;
            }
            let is_end = items.len() == before;
            rounds += usize::from(!is_end);
            progresses.resize(items.len(), progress);
            if items.is_empty() {
                return;
            }
            if !is_end && rounds < accumulation {
                continue;
            }
            rounds = 0;
            let lr_before = run.learner.lr_current();
            let of_last_round = before;
            let first_iteration = iteration;
            iteration += items.len();
            let outputs = match run.step_on(devices, std::mem::take(&mut items), epoch, iteration) {
                Ok(outputs) => outputs,
                Err(error) => return run.shared.fail(error),
            };
            for ((place, output), progress) in
                outputs.into_iter().enumerate().zip(progresses.drain(..))
            {
                let is_last = place >= of_last_round || is_end;
                let lr = if is_last { run.learner.lr_current() } else { lr_before.clone() };
                let at = Some(first_iteration + place + 1);
                let item = TrainingItem::new(output, progress, at, Some(lr));
                self.trained(LearnerEvent::ProcessedItem(item));
            }
            if is_end || self.interrupter.should_stop() {
                return;
            }
        }
    }
}
