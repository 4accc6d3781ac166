//! Steps over replicas of a model on several devices.

use super::Wsam;
use crate::method::{Method, NonFinite};
use crate::optim::error::{Rejected, WsamError};
use crate::optim::options::Perturbation;
use crate::optim::pass::Pass;
use crate::optim::pass_schedule::StepKind;
use crate::optim::rates::Rates;
use crate::optim::replicas::{DataParallelReport, Replicas, Round, RoundSettings, Shard};
use crate::optim::report::StepReport;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

impl Wsam {
    /// A whole step over replicas of the model on several devices, which run at the same time. Gradients are those
    /// of the weighted average of the shards' losses, and the step is the ordinary one on the optimizer's device:
    ///
    /// - With [`Perturbation::Whole`] it is the step of one large batch. Each replica receives the weights and the
    ///   perturbed weights.
    /// - With [`Perturbation::EachMicroBatch`] each replica is perturbed along its own gradient, as in the authors'
    ///   data-parallel training, and receives only the weights. The second pass runs while `g` is sent. It equals
    ///   [`step_accumulated_weighted`](Self::step_accumulated_weighted) over the shards.
    ///
    /// The first shard goes to the first replica, and so on; replicas without a shard are idle. Running statistics
    /// are those of the first replica, and each step sends them to all, as in PyTorch's `DistributedDataParallel`.
    /// With a [`mask_seed`](crate::WsamConfig::mask_seed) each replica needs a device of its own. A NaN or an
    /// infinity of a replica is an error that names it, unless the policy is
    /// [`Propagate`](crate::NonFinitePolicy::Propagate) or losses are scaled. `non_finite` still decides about the
    /// averages.
    ///
    /// ```
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::tensor::{Device, Tensor, TensorData};
    /// # use burn_wsam::{Perturbation, Replicas, SgdBaseConfig, Shard, WsamConfig, WsamError};
    /// # fn main() -> Result<(), WsamError> {
    /// let device = Device::flex().autodiff();
    /// let model = LinearConfig::new(4, 1).init(&device);
    /// let mut optim = WsamConfig::new(SgdBaseConfig::new().into()).init(&device)?;
    /// let mut replicas = Replicas::new(
    ///     |rows: TensorData, device| Tensor::<2>::from_data(rows, device),
    ///     |model: &Linear, x| model.forward(x.clone()).powi_scalar(2).mean(),
    /// );
    /// replicas.add("first", &device)?;
    /// replicas.add("second", &device)?;
    /// let rows = |n: usize| TensorData::ones::<f32, _>([n, 4]);
    /// let shards = vec![Shard::new(rows(6), 6.0), Shard::new(rows(5), 5.0)];
    /// let (model, report) =
    ///     optim.step_data_parallel(0.1, model, Perturbation::Whole, &mut replicas, shards)?;
    /// println!("{}, {} bytes received", report.step, report.bytes_received());
    /// # let _ = model;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the model as it was before the step, as [`step`](Self::step), and:
    /// [`WsamError::Replica`] if a replica panics, hangs, fails or returns a NaN; [`WsamError::Shards`] for no shard
    /// or more shards than replicas; [`WsamError::ShardWeights`] for a weight that is not finite and above 0;
    /// [`WsamError::Conflict`] for [`Perturbation::EachMicroBatch`] under Momentum-SAM and Friendly-SAM. The
    /// optimizer is as before the step, and the next call may run without the replica. In lean mode with
    /// [`Perturbation::Whole`] the model stays at `w + e_w` if a replica fails in the second pass, as described for
    /// [`LeanAscended::abandon`](crate::LeanAscended::abandon).
    pub fn step_data_parallel<M, B>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        perturbation: Perturbation,
        replicas: &mut Replicas<M, B>,
        shards: Vec<Shard<B>>,
    ) -> Result<(M, DataParallelReport), Rejected<M>>
    where
        M: Module + 'static,
        B: Send + 'static,
    {
        let begun = self.check_replicas(perturbation).and_then(|()| {
            let (rates, _) = self.begin(lr)?;
            let shards = shards.into_iter().enumerate().collect();
            Ok((rates, Round::new(replicas, shards, self.round_settings())?))
        });
        let (rates, mut round) = match begun {
            Ok(begun) => begun,
            Err(error) => return Err(Rejected::new(model, error)),
        };
        let (model, step) = self.keeping_statistics(model, |wsam, model| {
            let stepped = match perturbation {
                Perturbation::Whole => wsam.replicas_together(&rates, model, &mut round),
                Perturbation::EachMicroBatch => wsam.replicas_each(&rates, model, &mut round),
            };
            stepped.map(|(model, report)| (round.with_statistics(model), report))
        })?;
        Ok((model, DataParallelReport { step, replicas: round.into_reports() }))
    }

    /// A step whose replicas run each pass with the same weights.
    fn replicas_together<M: Module + 'static, B: Send + 'static>(
        &mut self,
        rates: &Rates,
        model: M,
        round: &mut Round<'_, M, B>,
    ) -> Result<(M, StepReport), Rejected<M>> {
        let mut is_second = false;
        self.passes_and_phases(rates, model, |model| {
            let pass = if is_second { round.second(model) } else { round.first(model) };
            is_second = true;
            with_loss(pass?)
        })
    }

    /// A step whose replicas are each perturbed along their own gradient, if it has two passes.
    fn replicas_each<M: Module + 'static, B: Send + 'static>(
        &mut self,
        rates: &Rates,
        model: M,
        round: &mut Round<'_, M, B>,
    ) -> Result<(M, StepReport), Rejected<M>> {
        match self.next_kind() {
            Ok(StepKind::TwoPasses) => {}
            Ok(_) => return self.replicas_together(rates, model, round),
            Err(error) => return Err(Rejected::new(model, error)),
        }
        let passed = round.both(&model, self.replica_ascent());
        let passed = passed.and_then(|[first, second]| Ok((with_loss(first)?, with_loss(second)?)));
        match passed {
            Ok((first, second)) => self.phases(rates, model, first, |_| Ok(second)),
            Err(error) => Err(Rejected::new(model, error)),
        }
    }

    /// Returns an error for perturbations that replicas cannot take for this method.
    pub(in crate::optim) fn check_replicas(
        &self,
        perturbation: Perturbation,
    ) -> Result<(), WsamError> {
        self.check_perturbation(perturbation)?;
        let each = perturbation == Perturbation::EachMicroBatch;
        if each && matches!(self.hyper.method, Method::FriendlySam { .. }) {
            return Err(WsamError::Conflict {
                option: "Perturbation::EachMicroBatch",
                other: "Friendly-SAM",
                reason: "replicas do not have its average of gradients; use Perturbation::Whole",
            });
        }
        Ok(())
    }

    pub(in crate::optim) fn round_settings(&self) -> RoundSettings {
        let propagates = matches!(self.hyper.non_finite, NonFinite::Propagate);
        RoundSettings {
            device: self.device.clone(),
            loss_scale: self.loss_scale(),
            mask_seed: self.options.mask_seed,
            step: self.steps,
            checks_finite: !propagates && self.options.loss_scale.is_none(),
        }
    }
}

/// The pass with its loss, which replicas of [`Replicas::new`] always return.
fn with_loss((grads, loss): (GradientsParams, Option<Tensor<1>>)) -> Result<Pass, WsamError> {
    Ok((grads, loss.ok_or(WsamError::NoMicroBatches)?))
}
