//! Training on several devices, each with a replica of the model and its own part of the data.

use super::error::WsamTrainingError;
use super::run::Run;
use crate::optim::error::WsamError;
use crate::optim::options::Perturbation;
use crate::optim::pass::Sum;
use crate::optim::pass_schedule::StepKind;
use crate::optim::replicas::{Computed, PassSettings, ReplicaPass, Replicas, Round, Shard};
use burn::tensor::{Device, Tensor};
use burn::train::{LearnerModel, TrainOutput, TrainStep};
use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

pub(super) type Input<M> = <M as TrainStep>::Input;
pub(super) type Output<M> = <M as TrainStep>::Output;

/// Outputs of one pass of a replica, with the place of its shard.
type Outputs<M> = (usize, ReplicaPass, Vec<Output<M>>);

/// The replicas of a training.
pub(super) struct Devices<M: LearnerModel> {
    replicas: Replicas<M, Vec<Input<M>>>,
    outputs: Receiver<Outputs<M>>,
}

impl<M: LearnerModel + 'static> Devices<M>
where
    Input<M>: Clone,
{
    pub(super) fn new(devices: &[Device], timeout: Duration) -> Result<Self, WsamTrainingError> {
        let (sender, outputs) = channel();
        let run_pass = move |model: &M, items: &Vec<Input<M>>, settings: &PassSettings, pass| {
            let (mut sum, mut outputs) = (Sum::default(), Vec::new());
            for item in items {
                let TrainOutput { grads, item } = TrainStep::step(model, item.clone());
                sum.add(model, grads, None);
                outputs.push(item);
            }
            // Nothing waits for the outputs of a step that has failed.
            let _ = sender.send((settings.part, pass, outputs));
            Ok(sum.take())
        };
        // The loaders make their batches on the replicas' devices.
        let replicas = Replicas::with_pass(|items, _: &Device| items, run_pass);
        let mut replicas = replicas.with_timeout(timeout);
        for (place, device) in devices.iter().enumerate() {
            replicas.add(format!("devices[{place}]"), device)?;
        }
        Ok(Self { replicas, outputs })
    }
}

/// The batches of one step, in the order of their outputs: each with the place of its device.
pub(super) type Items<M> = Vec<(usize, Input<M>)>;

impl<M: LearnerModel + 'static> Run<'_, M>
where
    Input<M>: Clone,
{
    /// Takes a step over the batches, and returns the outputs of their first passes.
    pub(super) fn step_on(
        &mut self,
        devices: &mut Devices<M>,
        items: Items<M>,
        epoch: usize,
        iteration: usize,
    ) -> Result<Vec<Output<M>>, WsamTrainingError> {
        let order: Vec<usize> = items.iter().map(|(place, _)| *place).collect();
        let mut of_device: HashMap<usize, Vec<Input<M>>> = HashMap::new();
        for (place, item) in items {
            of_device.entry(place).or_default().push(item);
        }
        let mut shards: Vec<_> = of_device.into_iter().collect();
        shards.sort_by_key(|(place, _)| *place);
        let places: Vec<usize> = shards.iter().map(|(place, _)| *place).collect();
        let shards = shards.into_iter().map(|(place, items)| (place, Shard::new(items, 1.0)));

        let mut window = self.open(epoch, 1)?;
        let settings = self.shared.wsam().round_settings();
        let mut round = Round::new(&mut devices.replicas, shards.collect(), settings)?;
        let model = match &window.along_momentum {
            Some(ascended) => ascended.model().clone(),
            None => self.learner.model(),
        };
        let has_second = window.active && self.shared.wsam().next_kind()? == StepKind::TwoPasses;
        let each = has_second && self.options.perturbation == Perturbation::EachMicroBatch;
        if each {
            self.shared.wsam().check_replicas(self.options.perturbation)?;
        }
        let (first, second) = if each {
            let ascent = self.shared.wsam().replica_ascent();
            let [first, second] = round.both(&model, ascent)?;
            (first, Some(second))
        } else {
            (round.first(&model)?, None)
        };
        let mut outputs: HashMap<usize, VecDeque<Output<M>>> = HashMap::new();
        let mut perturbed = Vec::new();
        for (part, pass, of_part) in devices.outputs.try_iter() {
            match pass {
                ReplicaPass::First => drop(outputs.insert(places[part], of_part.into())),
                ReplicaPass::Second => perturbed.extend(of_part),
            }
        }
        let loss = self.losses_of(outputs.values().flatten())?;
        window.first.add(&model, first.0, loss);
        let mut second = match second {
            Some((grads, _)) => Some((grads, self.losses_of(&perturbed)?)),
            None => None,
        };
        // The learner's model shares its statistics with its clones.
        drop(round.with_statistics(model));
        self.step_with(window, iteration, &mut |run, perturbed, window| {
            let (grads, loss) = match second.take() {
                Some(second) => second,
                None => {
                    let (grads, _): Computed = round.second(perturbed)?;
                    let outputs: Vec<_> =
                        devices.outputs.try_iter().flat_map(|(_, _, outputs)| outputs).collect();
                    (grads, run.losses_of(&outputs)?)
                }
            };
            window.second.add(perturbed, grads, loss);
            Ok(())
        })?;
        let next = |place| outputs.get_mut(&place).and_then(VecDeque::pop_front);
        Ok(order.into_iter().filter_map(next).collect())
    }

    /// The sum of the losses in outputs, on the optimizer's device, if the strategy knows them.
    fn losses_of<'o>(
        &self,
        outputs: impl IntoIterator<Item = &'o Output<M>>,
    ) -> Result<Option<Tensor<1>>, WsamTrainingError>
    where
        M: 'o,
    {
        let device = self.shared.wsam().device().clone();
        let mut sum: Option<Tensor<1>> = None;
        for output in outputs {
            let Some(loss) = self.loss_of(output)? else { return Ok(None) };
            let data = loss.without_autodiff().try_into_data();
            let data = data.map_err(|error| WsamError::Backend { reason: error.to_string() })?;
            let loss = Tensor::from_data(data.clone(), (&device, data.dtype()));
            sum = Some(match sum {
                Some(sum) => sum + loss,
                None => loss,
            });
        }
        Ok(sum)
    }
}
