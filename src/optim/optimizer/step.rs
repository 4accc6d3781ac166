//! Whole steps from a loss closure, which run both passes over one batch or over several micro-batches.

use super::Wsam;
use crate::method::Method;
use crate::optim::error::{Rejected, WsamError};
use crate::optim::options::Perturbation;
use crate::optim::pass::{Pass, Sum, copied, pass, shares, summed};
use crate::optim::pass_schedule::{NextStep, StepKind};
use crate::optim::rates::Rates;
use crate::optim::report::StepReport;
use crate::optim::seeds::Masks;
use crate::optim::statistics::RunningStatistics;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::tensor::Tensor;

impl Wsam {
    /// A whole step: `loss` is called with the model and then with the perturbed model. In a step of one pass
    /// ([`StepReport::passes`]) it is called once: with the model, or under Momentum-SAM with the perturbed model. The
    /// returned model is at `w` in each case.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the unchanged model, as [`ascend`](Self::ascend) and
    /// [`descend`](Self::descend), and if `loss` returns a tensor that is not on the autodiff graph or does not
    /// have shape `[1]`.
    pub fn step<M, F>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        mut loss: F,
    ) -> Result<(M, StepReport), Rejected<M>>
    where
        M: Module,
        F: FnMut(&M) -> Tensor<1>,
    {
        // Check the rates before the two expensive passes.
        let (rates, masks) = match self.begin(lr) {
            Ok(begun) => begun,
            Err(error) => return Err(Rejected::new(model, error)),
        };
        let scale = self.loss_scale();
        self.keeping_statistics(model, |wsam, model| {
            let each = |model: &M| {
                masks.before(model, 0)?;
                pass(model, loss(model), scale, 1.0)
            };
            wsam.passes_and_phases(&rates, model, each)
        })
    }

    /// A whole step over micro-batches that together are too large for one pass. Gradients are those
    /// of the average loss of the micro-batches: with [`Perturbation::Whole`], and losses that are
    /// means over micro-batches of one size, the step is that of one large batch. For micro-batches of
    /// several sizes use [`step_accumulated_weighted`](Self::step_accumulated_weighted).
    ///
    /// `loss` is called with the model and each micro-batch, and then with the perturbed model and
    /// each micro-batch. Running statistics advance once for each micro-batch. The report's losses are
    /// averages.
    ///
    /// ```
    /// # use burn::nn::LinearConfig;
    /// # use burn::tensor::{Device, Distribution, Tensor};
    /// # use burn_wsam::{Perturbation, SgdBaseConfig, WsamConfig, WsamError};
    /// # fn main() -> Result<(), WsamError> {
    /// # let device = Device::flex().autodiff();
    /// # let model = LinearConfig::new(4, 1).init(&device);
    /// # let mut optim = WsamConfig::new(SgdBaseConfig::new().into()).init(&device)?;
    /// let batch = Tensor::<2>::random([32, 4], Distribution::Default, &device);
    /// // Four of eight rows each: 4 divides 32.
    /// let micro_batches = batch.chunk(4, 0);
    /// let (model, report) =
    ///     optim.step_accumulated(0.1, model, Perturbation::Whole, &micro_batches, |model, x| {
    ///         model.forward(x.clone()).powi_scalar(2).mean()
    ///     })?;
    /// # let _ = (model, report);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step), [`WsamError::NoMicroBatches`] if there are none, and [`WsamError::Conflict`] for
    /// [`Perturbation::EachMicroBatch`] under Momentum-SAM.
    pub fn step_accumulated<M, B, F>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        perturbation: Perturbation,
        micro_batches: &[B],
        loss: F,
    ) -> Result<(M, StepReport), Rejected<M>>
    where
        M: Module,
        F: FnMut(&M, &B) -> Tensor<1>,
    {
        let weights = vec![1.0; micro_batches.len()];
        self.step_accumulated_weighted(lr, model, perturbation, micro_batches, &weights, loss)
    }

    /// [`step_accumulated`](Self::step_accumulated) with a weight for each micro-batch: gradients are those of
    /// the weighted average of the losses. With the number of samples as weights, and losses that are means
    /// over micro-batches, the step is that of one large batch, whatever the sizes:
    ///
    /// ```
    /// # use burn::nn::LinearConfig;
    /// # use burn::tensor::{Device, Distribution, Tensor};
    /// # use burn_wsam::{Perturbation, SgdBaseConfig, WsamConfig, WsamError};
    /// # fn main() -> Result<(), WsamError> {
    /// # let device = Device::flex().autodiff();
    /// # let model = LinearConfig::new(4, 1).init(&device);
    /// # let mut optim = WsamConfig::new(SgdBaseConfig::new().into()).init(&device)?;
    /// let batch = Tensor::<2>::random([30, 4], Distribution::Default, &device);
    /// // 8, 8, 8 and 6 rows.
    /// let micro_batches = batch.chunk(4, 0);
    /// let rows: Vec<f64> = micro_batches.iter().map(|x| x.dims()[0] as f64).collect();
    /// let (model, report) = optim.step_accumulated_weighted(
    ///     0.1,
    ///     model,
    ///     Perturbation::Whole,
    ///     &micro_batches,
    ///     &rows,
    ///     |model, x| model.forward(x.clone()).powi_scalar(2).mean(),
    /// )?;
    /// # let _ = (model, report);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As there, and [`WsamError::MicroBatchWeights`] for another number of weights than of micro-batches, a
    /// weight that is not finite and positive, or a sum beyond `f64`.
    pub fn step_accumulated_weighted<M, B, F>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        perturbation: Perturbation,
        micro_batches: &[B],
        weights: &[f64],
        mut loss: F,
    ) -> Result<(M, StepReport), Rejected<M>>
    where
        M: Module,
        F: FnMut(&M, &B) -> Tensor<1>,
    {
        let begun = self
            .check_perturbation(perturbation)
            .and_then(|()| shares(micro_batches.len(), weights))
            .and_then(|shares| self.begin(lr).map(|(rates, masks)| (rates, masks, shares)));
        let (rates, masks, shares) = match begun {
            Ok(begun) => begun,
            Err(error) => return Err(Rejected::new(model, error)),
        };
        let scale = self.loss_scale();
        let each = |model: &M, part: usize| {
            masks.before(model, part)?;
            pass(model, loss(model, &micro_batches[part]), scale, shares[part])
        };
        let parts = micro_batches.len();
        self.keeping_statistics(model, |wsam, model| match perturbation {
            Perturbation::Whole => wsam.perturbed_once(&rates, model, parts, each),
            Perturbation::EachMicroBatch => wsam.perturbed_each(&rates, model, parts, each),
        })
    }

    /// Returns an error for perturbations that the method does not have.
    pub(in crate::optim) fn check_perturbation(
        &self,
        perturbation: Perturbation,
    ) -> Result<(), WsamError> {
        let each = perturbation == Perturbation::EachMicroBatch;
        if each && self.hyper.method == Method::MomentumSam {
            return Err(WsamError::Conflict {
                option: "Perturbation::EachMicroBatch",
                other: "Momentum-SAM",
                reason: "it perturbs along the momentum, which all micro-batches share; use Perturbation::Whole",
            });
        }
        Ok(())
    }

    /// Runs the passes and the phases of a step over one batch.
    pub(super) fn passes_and_phases<M: Module>(
        &mut self,
        rates: &Rates,
        model: M,
        mut each: impl FnMut(&M) -> Result<Pass, WsamError>,
    ) -> Result<(M, StepReport), Rejected<M>> {
        if self.hyper.method == Method::MomentumSam {
            match self.next_kind() {
                Ok(StepKind::AlongMomentum) => return self.momentum_phases(rates, model, each),
                Ok(_) => {}
                Err(error) => return Err(Rejected::new(model, error)),
            }
        }
        match each(&model) {
            Ok(first) => self.rest_of_step(rates, model, first, each),
            Err(error) => Err(Rejected::new(model, error)),
        }
    }

    /// Checks the rates and prepares the seeds, before the first pass.
    pub(super) fn begin(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
    ) -> Result<(Rates, Masks), WsamError> {
        let rates = Rates::new(lr)?;
        Ok((rates, self.masks()?))
    }

    /// Takes a step, and restores running statistics, which the passes change, if it is skipped or fails.
    pub(super) fn keeping_statistics<M: Module>(
        &mut self,
        model: M,
        step: impl FnOnce(&mut Self, M) -> Result<(M, StepReport), Rejected<M>>,
    ) -> Result<(M, StepReport), Rejected<M>> {
        let statistics = RunningStatistics::of(&model);
        match step(self, model) {
            Ok((model, report)) => {
                self.restore_statistics_if_skipped(model, &statistics).map(|model| (model, report))
            }
            Err(Rejected { model, error }) => Err(Rejected::new(statistics.restore(*model), error)),
        }
    }

    fn perturbed_once<M: Module>(
        &mut self,
        rates: &Rates,
        model: M,
        parts: usize,
        mut each: impl FnMut(&M, usize) -> Result<Pass, WsamError>,
    ) -> Result<(M, StepReport), Rejected<M>> {
        let all = |model: &M| {
            let mut sum = Sum::default();
            for part in 0..parts {
                let (grads, loss) = each(model, part)?;
                sum.add(model, grads, Some(loss));
            }
            summed(sum)
        };
        self.passes_and_phases(rates, model, all)
    }

    fn perturbed_each<M: Module>(
        &mut self,
        rates: &Rates,
        mut model: M,
        parts: usize,
        mut each: impl FnMut(&M, usize) -> Result<Pass, WsamError>,
    ) -> Result<(M, StepReport), Rejected<M>> {
        match self.next_kind().map(StepKind::next_step) {
            Ok(NextStep::TwoPasses) => {}
            Ok(_) => return self.perturbed_once(rates, model, parts, each),
            Err(error) => return Err(Rejected::new(model, error)),
        }
        let (mut first, mut second) = (Sum::default(), Sum::default());
        for part in 0..parts {
            let (grads, loss) = match each(&model, part) {
                Ok(pass) => pass,
                Err(error) => return Err(Rejected::new(model, error)),
            };
            first.add(&model, copied(&model, &grads), Some(loss));
            let ascended = self.ascend(model, grads)?;
            let perturbed = each(ascended.model(), part)
                .map(|(grads, loss)| second.add(ascended.model(), grads, Some(loss)));
            model = ascended.restore();
            if let Err(error) = perturbed {
                return Err(Rejected::new(model, error));
            }
        }
        // The descent needs an ascent along the whole gradient. The second gradients are computed already.
        match summed(first) {
            Ok(first) => self.phases(rates, model, first, |_| summed(second)),
            Err(error) => Err(Rejected::new(model, error)),
        }
    }

    /// Runs both phases of an ordinary or lean step, after the first pass.
    pub(super) fn phases<M: Module>(
        &mut self,
        rates: &Rates,
        model: M,
        (grads, loss): Pass,
        second: impl FnOnce(&M) -> Result<Pass, WsamError>,
    ) -> Result<(M, StepReport), Rejected<M>> {
        let (model, norms, perturbed_loss) = if self.options.lean {
            let ascended = self.lean_ascend_at(rates, model, grads)?;
            let (grads, loss) = match second(ascended.model()) {
                Ok(pass) => pass,
                Err(error) => return Err(Rejected::new(ascended.abandon(), error)),
            };
            let (model, norms) = self.lean_descend_reported(ascended, grads)?;
            (model, norms, loss)
        } else {
            let ascended = self.ascend(model, grads)?;
            let (grads, loss) = match second(ascended.model()) {
                Ok(pass) => pass,
                Err(error) => return Err(Rejected::new(ascended.restore(), error)),
            };
            let (model, norms) = self.descend_reported(rates, ascended, grads)?;
            (model, norms, loss)
        };
        Ok((model, StepReport { loss, perturbed_loss: Some(perturbed_loss), norms }))
    }
}
