//! Whole steps: a loss in, the gradients of both passes taken here, over one batch or over several
//! micro-batches.

use super::Wsam;
use crate::burn::error::{Rejected, WsamError};
use crate::burn::rates::Rates;
use crate::burn::report::StepReport;
use crate::burn::sums::Sum;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// Where the weights are perturbed in a step over several micro-batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Perturbation {
    /// Once, along the gradient of all micro-batches: the step of one large batch.
    Whole,
    /// For each micro-batch along its own gradient, so that `g~` is the average of gradients at
    /// different points: m-sharpness, as data-parallel training with unsynchronised perturbations
    /// has it. Foret et al. 2021, section 4.1 of <https://arxiv.org/abs/2010.01412>. It costs an
    /// ascent more for each micro-batch.
    EachMicroBatch,
}

/// A pass over the data: the gradient and the loss, off the graph.
type Pass = (GradientsParams, Tensor<1>);

impl Wsam {
    /// A whole step: `loss` is called with the model and then with the perturbed model.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the model unharmed, as [`ascend`](Self::ascend) and
    /// [`descend`](Self::descend), and if `loss` returns a tensor off the autodiff graph.
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
        // Before the two expensive passes, not after them.
        let rates = match Rates::new(lr) {
            Ok(rates) => rates,
            Err(error) => return Err(Rejected::new(model, error)),
        };
        let (masks, scale) = (self.masks(), self.loss_scale());
        let mut both = |model: &M| {
            masks.before(model, 0)?;
            pass(model, loss(model), scale)
        };
        match both(&model) {
            Ok(first) => self.halves(&rates, model, first, both),
            Err(error) => Err(Rejected::new(model, error)),
        }
    }

    /// A whole step over micro-batches that together are too large for one pass. Gradients are those
    /// of the average of the micro-batches' losses: with [`Perturbation::Whole`], and losses that are
    /// means over micro-batches of one size, the step is that of one large batch.
    ///
    /// `loss` is called with the model and each micro-batch, and again with the perturbed model and
    /// each of the same. Running statistics advance once for each micro-batch. The report's losses are
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
    /// As [`step`](Self::step), and [`WsamError::NoMicroBatches`] if there are none.
    pub fn step_accumulated<M, B, F>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        perturbation: Perturbation,
        micro_batches: &[B],
        mut loss: F,
    ) -> Result<(M, StepReport), Rejected<M>>
    where
        M: Module,
        F: FnMut(&M, &B) -> Tensor<1>,
    {
        let rates = match Rates::new(lr) {
            Ok(rates) => rates,
            Err(error) => return Err(Rejected::new(model, error)),
        };
        let share = 1.0 / micro_batches.len() as f64;
        let (masks, scale) = (self.masks(), self.loss_scale());
        let mut each = |model: &M, (part, batch): (usize, &B)| {
            masks.before(model, part)?;
            pass(model, loss(model, batch) * share, scale)
        };
        if perturbation == Perturbation::Whole {
            let mut all = |model: &M| {
                let mut sum = Sum::default();
                for batch in micro_batches.iter().enumerate() {
                    let (grads, loss) = each(model, batch)?;
                    sum.add(model, grads, Some(loss));
                }
                summed(sum)
            };
            return match all(&model) {
                Ok(first) => self.halves(&rates, model, first, all),
                Err(error) => Err(Rejected::new(model, error)),
            };
        }
        let (mut first, mut second) = (Sum::default(), Sum::default());
        let mut model = model;
        for batch in micro_batches.iter().enumerate() {
            let (grads, loss) = match each(&model, batch) {
                Ok(pass) => pass,
                Err(error) => return Err(Rejected::new(model, error)),
            };
            first.add(&model, copied(&model, &grads), Some(loss));
            let ascended = self.ascend(model, grads)?;
            let perturbed = each(&ascended, batch)
                .map(|(grads, loss)| second.add(&*ascended, grads, Some(loss)));
            model = ascended.restore();
            if let Err(error) = perturbed {
                return Err(Rejected::new(model, error));
            }
        }
        // The last climb is for the descent's sake: it needs `g`, and `g~` is there already.
        match summed(first) {
            Ok(first) => self.halves(&rates, model, first, |_| summed(second)),
            Err(error) => Err(Rejected::new(model, error)),
        }
    }

    /// Both halves of a step, lean or not, from the first pass on.
    fn halves<M: Module>(
        &mut self,
        rates: &Rates,
        model: M,
        (grads, loss): Pass,
        second: impl FnOnce(&M) -> Result<Pass, WsamError>,
    ) -> Result<(M, StepReport), Rejected<M>> {
        let (model, norms, perturbed_loss) = if self.options.lean {
            let ascended = self.lean_ascend_at(rates, model, grads)?;
            let (grads, loss) = match second(&ascended) {
                Ok(pass) => pass,
                Err(error) => return Err(Rejected::new(ascended.abandon(), error)),
            };
            let (model, norms) = self.lean_descend_reported(ascended, grads)?;
            (model, norms, loss)
        } else {
            let ascended = self.ascend(model, grads)?;
            let (grads, loss) = match second(&ascended) {
                Ok(pass) => pass,
                Err(error) => return Err(Rejected::new(ascended.restore(), error)),
            };
            let (model, norms) = self.descend_reported(rates, ascended, grads)?;
            (model, norms, loss)
        };
        Ok((model, StepReport { loss, perturbed_loss, norms }))
    }
}

/// The gradient of `loss` at `model`, times `scale`.
fn pass<M: Module>(model: &M, loss: Tensor<1>, scale: f64) -> Result<Pass, WsamError> {
    if !loss.is_autodiff() {
        return Err(WsamError::NoAutodiff);
    }
    let root = if scale == 1.0 { loss.clone() } else { loss.clone() * scale };
    let grads = GradientsParams::from_grads(root.backward(), model);
    Ok((grads, loss.without_autodiff()))
}

/// What was summed up.
fn summed<M: Module>(sum: Sum<M>) -> Result<Pass, WsamError> {
    let (grads, loss) = sum.take();
    Ok((grads, loss.ok_or(WsamError::NoMicroBatches)?))
}

/// Handles to the same gradients.
pub(in crate::burn) fn copied<M: Module>(model: &M, grads: &GradientsParams) -> GradientsParams {
    struct Copy<'a> {
        from: &'a GradientsParams,
        to: GradientsParams,
    }
    impl ModuleVisitor for Copy<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.from.get::<D>(param.id) {
                self.to.register(param.id, grad);
            }
        }
    }
    let mut copy = Copy { from: grads, to: GradientsParams::new() };
    model.visit(&mut copy);
    copy.to
}
