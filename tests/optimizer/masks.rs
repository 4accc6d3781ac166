//! Dropout masks in the two passes.

use super::Target;
use super::nets::{Mlp, config, data, text};
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Tensor, activation::relu};
use burn_wsam::{Perturbation, WsamConfig};

#[derive(Module, Debug)]
struct DropoutNet {
    net: Mlp,
    dropout: Dropout,
}

impl DropoutNet {
    fn new(target: &Target) -> Self {
        Self { net: Mlp::new(&target.device), dropout: DropoutConfig::new(0.5).init() }
    }

    fn loss(&self, batch: u64) -> Tensor<1> {
        let x = data([7, 5], batch, &self.net.a.weight.device());
        let hidden = self.dropout.forward(relu(self.net.a.forward(x)));
        self.net.b.forward(hidden).powi_scalar(2).mean()
    }
}

/// Losses of both passes in three steps. At rho 0 the two losses of a step differ only by the masks.
fn losses(target: &Target, config: &WsamConfig, parts: usize) -> Result<Vec<(f32, f32)>, String> {
    let mut optim = target.init(&config.clone().with_rho(0.0))?;
    let mut model = DropoutNet::new(target);
    let mut found = Vec::new();
    for _ in 0..3 {
        let batches: Vec<u64> = (0..parts as u64).collect();
        let step = match parts {
            // At a learning rate of 0 the steps differ only by their masks.
            1 => optim.step(0.0, model, |model| model.loss(0)),
            _ => {
                let whole = Perturbation::Whole;
                optim.step_accumulated(0.0, model, whole, &batches, |model, b| model.loss(*b))
            }
        };
        let report;
        (model, report) = step.map_err(text)?;
        let [first, second] =
            [Some(report.loss()), report.perturbed_loss()].map(|loss| loss.expect("two passes"));
        found.push((first.into_scalar::<f32>(), second.into_scalar::<f32>()));
    }
    Ok(found)
}

/// Whether two losses come from the same masks. Burn may sum a loss in another order, which changes it by far less
/// than other masks do.
fn equal(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-5 * a.abs()
}

fn all_equal(a: &[(f32, f32)], b: &[(f32, f32)]) -> bool {
    a.iter().zip(b).all(|(a, b)| equal(a.0, b.0) && equal(a.1, b.1))
}

pub(crate) fn dropout(target: &Target) -> Result<(), String> {
    for parts in [1, 2] {
        let plain = losses(target, &config(), parts)?;
        if plain.iter().any(|(first, second)| equal(*first, *second)) {
            return Err(format!("without a seed the masks are the same: {plain:?}"));
        }
        let seeded = losses(target, &config().with_mask_seed(Some(7)), parts)?;
        if seeded.iter().any(|(first, second)| !equal(*first, *second)) {
            return Err(format!("with a seed the masks differ: {seeded:?}"));
        }
        if equal(seeded[0].0, seeded[1].0) || equal(seeded[1].0, seeded[2].0) {
            return Err(format!("all steps have the same masks: {seeded:?}"));
        }
        let again = losses(target, &config().with_mask_seed(Some(7)), parts)?;
        let other = losses(target, &config().with_mask_seed(Some(8)), parts)?;
        if !all_equal(&again, &seeded) || all_equal(&other, &seeded) {
            return Err(format!("the masks do not depend on the seed alone: {seeded:?}"));
        }
    }
    Ok(())
}
