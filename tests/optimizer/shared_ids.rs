//! Parameters that share an id. Tied parameters share the tensor too; an average or target network has its own
//! tensors.

use super::Target;
use super::nets::{config, data, grads, parameters, same, text};
use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::Tensor;
use burn_wsam::sharpness::{Plane, PowerIteration, loss_rise, surface, top_eigenvalue};
use burn_wsam::{BaseConfig, WsamConfig};

/// A network and its target network, in either order.
#[derive(Module, Debug)]
struct Pair {
    early: Option<Linear>,
    online: Linear,
    late: Option<Linear>,
}

/// Adds 0.5 to each weight, and keeps the ids.
struct Shift;

impl ModuleMapper for Shift {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let moved = tensor.without_autodiff() + 0.5;
            Tensor::from_inner(moved).require_grad()
        })
    }
}

impl Pair {
    fn new(target: &Target, early: bool, frozen: bool) -> Self {
        target.device.seed(1);
        let online: Linear = LinearConfig::new(5, 3).init(&target.device);
        let moved = online.clone().map(&mut Shift);
        let moved = if frozen { moved.no_grad() } else { moved };
        let (early, late) = if early { (Some(moved), None) } else { (None, Some(moved)) };
        Self { early, online, late }
    }

    fn target(&self) -> Result<&Linear, String> {
        self.early.as_ref().or(self.late.as_ref()).ok_or_else(|| "no target".into())
    }

    /// Mean squared difference of the two networks' outputs. No gradient flows into the target.
    fn loss(&self, batch: u64) -> Tensor<1> {
        let x = data([7, 5], batch, &self.online.weight.device());
        let target = self.early.as_ref().or(self.late.as_ref()).unwrap_or(&self.online);
        let want = target.forward(x.clone()).detach();
        (self.online.forward(x) - want).powi_scalar(2).mean()
    }
}

fn number(loss: Tensor<1>) -> f64 {
    loss.into_scalar::<f64>()
}

/// A target network keeps its values in the second pass and after the step. The online network is trained like a
/// network whose target has other ids.
pub(crate) fn target_network(target: &Target) -> Result<(), String> {
    for burn_base in [false, true] {
        for (early, frozen) in [(false, true), (true, true), (false, false)] {
            let what = format!("burn_base {burn_base}, early {early}, frozen {frozen}");
            let init = || match burn_base {
                false => target.init(&config().with_gamma(0.8)),
                true => WsamConfig::new(BaseConfig::Burn)
                    .with_gamma(0.8)
                    .with_route(target.policy)
                    .init_with(SgdConfig::new().init(), &target.device)
                    .map_err(text),
            };
            let (mut optim, mut reference) = (init()?, init()?);
            let mut pair = Pair::new(target, early, frozen);
            let before = parameters(pair.target()?);
            // The reference network has the same values and a constant target.
            let fixed = pair.target()?.clone().valid();
            let fixed = move |batch| {
                let x: Tensor<2> = data([7, 5], batch, &fixed.weight.device());
                fixed.forward(x)
            };
            let mut want = pair.online.clone();
            for batch in 0..3 {
                let mut losses = Vec::new();
                let (stepped, _) = optim
                    .step(0.1, pair, |pair| {
                        losses.push(pair.loss(batch));
                        pair.loss(batch)
                    })
                    .map_err(text)?;
                pair = stepped;
                let mut want_losses = Vec::new();
                let (stepped, _) = reference
                    .step(0.1, want, |online| {
                        let x: Tensor<2> = data([7, 5], batch, &online.weight.device());
                        let target = Tensor::from_inner(fixed(batch));
                        let loss = (online.forward(x) - target).powi_scalar(2).mean();
                        want_losses.push(loss.clone());
                        loss
                    })
                    .map_err(text)?;
                want = stepped;
                for (got, want) in losses.into_iter().zip(want_losses) {
                    let (got, want) = (number(got), number(want));
                    let right = (got - want).abs() <= 1e-5 * want.abs() && got > 0.0;
                    if !right {
                        return Err(format!("{what}: a loss is {got}, expected {want}"));
                    }
                }
                same(&what, pair.target()?, &before)?;
                super::nets::close(&what, &pair.online, &want)?;
            }
            let trains = pair.target()?.weight.val().is_require_grad();
            if trains == frozen {
                return Err(format!("{what}: the target's gradient requirement changed"));
            }
        }
    }
    Ok(())
}

/// A clone that shares its tensors is tied, in the second pass too. A frozen clone is not.
pub(crate) fn clones(target: &Target) -> Result<(), String> {
    for frozen in [false, true] {
        target.device.seed(1);
        let online: Linear = LinearConfig::new(5, 3).init(&target.device);
        // Reads the parameters, because clones of uninitialised parameters are frozen together.
        let _ = parameters(&online);
        let other = if frozen { online.clone().no_grad() } else { online.clone() };
        let pair = Pair { early: None, online, late: Some(other) };
        let before = parameters(&pair.online);
        let loss = |pair: &Pair| {
            let x: Tensor<2> = data([7, 5], 1, &pair.online.weight.device());
            let other = pair.late.as_ref().unwrap_or(&pair.online);
            pair.online.forward(x.clone()).powi_scalar(2).mean() + other.forward(x).mean()
        };
        let mut optim = target.init(&config().with_rho(0.5))?;
        let first = grads(&loss(&pair), &pair);
        let ascended = optim.ascend(pair, first).map_err(text)?;
        let (moved, other) =
            (parameters(&ascended.model().online), parameters(ascended.model().target()?));
        if moved == before {
            return Err("the ascent did not change the weights".into());
        }
        let want = if frozen { &before } else { &moved };
        if other != *want {
            return Err(format!("frozen {frozen}: the clone is {other:?}, expected {want:?}"));
        }
    }
    Ok(())
}

/// Sharpness measures do not perturb the target network.
pub(crate) fn measures(target: &Target) -> Result<(), String> {
    for early in [false, true] {
        let pair = Pair::new(target, early, true);
        let at_w = number(pair.loss(0));
        let loss = |pair: &Pair| pair.loss(0);
        let plane = Plane::default().with_points(3);
        let found = surface(&pair, &plane, loss).map_err(text)?;
        let middle = found.losses[1][1];
        let right = (middle - at_w).abs() <= 1e-5 * at_w && at_w > 0.0;
        if !right {
            return Err(format!(
                "early {early}: the surface's middle is {middle}, expected {at_w}"
            ));
        }
        let top = top_eigenvalue(&pair, &PowerIteration::default(), loss).map_err(text)?.value;
        let is_found = top > 0.01;
        if !is_found {
            return Err(format!("early {early}: the top eigenvalue is {top}"));
        }
        let rise = loss_rise(&pair, 0.05, false, loss).map_err(text)?;
        let rises = rise > 0.0;
        if !rises {
            return Err(format!("early {early}: the loss rises by {rise}"));
        }
    }
    Ok(())
}
