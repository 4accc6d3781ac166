//! One training run, with an oracle that receives the same gradients.

use crate::Target;
use crate::nets::{data, grads, read, text};
use burn::module::{Module, ParamId};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::optim::momentum::MomentumConfig;
use burn::tensor::{Device, Tensor, activation::relu};
use burn_wsam::reference::Oracle;
use burn_wsam::{AdamWBaseConfig, BaseConfig, SgdBaseConfig, Wsam, WsamConfig};

/// Largest difference between oracle and run over all steps, as a share of the tensor's largest weight.
const DRIFT: f64 = 1e-4;

const LR: f64 = 0.01;

#[derive(Module, Debug)]
struct Net {
    a: Linear,
    b: Linear,
}

impl Net {
    fn new(hidden: usize, device: &Device) -> Self {
        Self {
            a: LinearConfig::new(5, hidden).init(device),
            b: LinearConfig::new(hidden, 3).init(device),
        }
    }

    fn loss(&self, batch: u64) -> Tensor<1> {
        let device = self.a.weight.device();
        let (x, y) = (data([7, 5], batch, &device), data([7, 3], batch + 1000, &device));
        (self.b.forward(relu(self.a.forward(x))) - y).powi_scalar(2).mean()
    }
}

/// A kind of step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StepKind {
    Ordinary,
    Lean,
    /// An ascent that is restored.
    Restored,
    /// `base_step`.
    Base,
    /// A NaN in the first pass (`false`) or in the second (`true`).
    Poisoned(bool),
}

pub(crate) struct Run {
    target: Target,
    config: WsamConfig,
    optim: Wsam,
    model: Option<Net>,
    oracle: Oracle,
    batch: u64,
}

impl Run {
    pub(crate) fn new(target: &Target, hidden: usize, kind: u64) -> Result<Self, String> {
        let base: BaseConfig = match kind % 3 {
            0 => SgdBaseConfig::new().into(),
            1 => SgdBaseConfig::new().with_momentum(Some(MomentumConfig::new())).into(),
            _ => AdamWBaseConfig::new().into(),
        };
        let mut config = WsamConfig::new(base).with_gamma(0.6);
        if kind.is_multiple_of(2) {
            config = config.with_max_norm(Some(0.5));
        }
        if kind.is_multiple_of(5) {
            config = config.with_adaptive(true);
        }
        let model = Net::new(hidden, &target.device);
        let hyper = config.hyperparameters().map_err(text)?;
        let oracle = Oracle::new(hyper, weights(&model));
        let optim = target.init(&config)?;
        Ok(Self { target: target.clone(), config, optim, model: Some(model), oracle, batch: 0 })
    }

    /// Takes a step and compares with the oracle.
    pub(crate) fn step(&mut self, kind: StepKind) -> Result<(), String> {
        let model = self.model.take().ok_or("the model was taken")?;
        let batch = self.batch;
        self.batch += 1;
        let factor = |bad: bool| if bad { f32::NAN } else { 1.0 };
        let (bad_first, bad_second) = match kind {
            StepKind::Poisoned(second) => (!second, second),
            _ => (false, false),
        };
        let first = grads(&(model.loss(batch) * factor(bad_first)), &model);
        let g = flat(&model, &first);
        let model = match kind {
            StepKind::Base => {
                self.oracle.base_step(LR, &g).map_err(text)?;
                self.optim.base_step(LR, model, first).map_err(text)?
            }
            StepKind::Lean => {
                let ascended = self.optim.lean_ascend(LR, model, first).map_err(text)?;
                let second = grads(&ascended.model().loss(batch), ascended.model());
                self.follow(&g, &flat(ascended.model(), &second))?;
                self.optim.lean_descend(ascended, second).map_err(text)?
            }
            StepKind::Ordinary | StepKind::Restored | StepKind::Poisoned(_) => {
                let ascended = self.optim.ascend(model, first).map_err(text)?;
                if matches!(kind, StepKind::Restored) {
                    ascended.restore()
                } else {
                    let second = grads(
                        &(ascended.model().loss(batch) * factor(bad_second)),
                        ascended.model(),
                    );
                    self.follow(&g, &flat(ascended.model(), &second))?;
                    self.optim.descend(LR, ascended, second).map_err(text)?
                }
            }
        };
        self.compare(&model, kind)?;
        self.model = Some(model);
        Ok(())
    }

    /// Continues with a new optimizer that loads the old one's record.
    pub(crate) fn resume(&mut self) -> Result<(), String> {
        let model = self.model.as_ref().ok_or("the model was taken")?;
        let bytes = self.optim.to_bytes(model).map_err(text)?;
        let mut optim = self.target.init(&self.config)?;
        optim.load_bytes(model, bytes).map_err(text)?;
        self.optim = optim;
        Ok(())
    }

    /// Replaces the model by a detached model or by a clone.
    pub(crate) fn replace_model(&mut self, detach: bool) -> Result<(), String> {
        let model = self.model.take().ok_or("the model was taken")?;
        self.model =
            Some(if detach { self.optim.copy_to_own_memory(model) } else { model.clone() });
        Ok(())
    }

    fn follow(&mut self, g: &[Vec<f64>], g_perturbed: &[Vec<f64>]) -> Result<(), String> {
        self.oracle.ascent(g).map_err(text)?;
        self.oracle.descent(LR, g_perturbed).map_err(text)
    }

    fn compare(&self, model: &Net, kind: StepKind) -> Result<(), String> {
        for ((got, want), tensor) in weights(model).iter().zip(self.oracle.weights()).zip(0..) {
            let largest = want.iter().fold(0.0f64, |largest, w| largest.max(w.abs()));
            for (got, want) in got.iter().zip(want) {
                let right = (got - want).abs() <= DRIFT * largest;
                if !right {
                    let (config, batch) = (&self.config, self.batch);
                    return Err(format!(
                        "{config}, step {batch}, {kind:?}: tensor {tensor} has {got}, expected {want}"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn widened(read: Vec<(String, ParamId, Vec<f32>)>) -> Vec<Vec<f64>> {
    read.into_iter().map(|(_, _, values)| burn_wsam_support::golden::widen(&values)).collect()
}

fn weights(model: &Net) -> Vec<Vec<f64>> {
    widened(read(model, None))
}

fn flat(model: &Net, grads: &GradientsParams) -> Vec<Vec<f64>> {
    widened(read(model, Some(grads)))
}
