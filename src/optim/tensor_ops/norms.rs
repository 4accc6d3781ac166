//! Norms and checks of gradients, and the perturbation.

use super::batch::{Batch, ROW};
use super::finite::{FiniteFlags, check_finite, check_norms, keep_where};
use crate::method::{CLIP_EPSILON, Clip, Hyperparameters, InGroup, NonFinite, Outcome};
use crate::optim::error::WsamError;
use crate::optim::pending::{Finite, Submitted};
use crate::optim::report::StepNorms;
use crate::optim::state::read_scalar;
use crate::optim::step_backend::StepContext;
use burn::module::ParamId;
use burn::tensor::{DType, Tensor};

/// Global norms as one-element tensors, read only on request.
#[derive(Clone, Debug)]
pub(crate) struct TensorNorms {
    pub(crate) gradient: Option<Tensor<1>>,
    pub(crate) perturbed: Option<Tensor<1>>,
    pub(super) finite: FiniteFlags,
    pub(super) policy: NonFinite,
    pub(super) lean: bool,
    /// Factor on all gradients of the step.
    inv_scale: f64,
}

impl TensorNorms {
    /// The step with its unread outcome.
    pub(super) fn submitted(&self, ids: Vec<ParamId>) -> Submitted<FiniteFlags> {
        Submitted { ids, policy: self.policy, readback: self.finite.clone() }
    }

    /// Multiplies a gradient by the loss scale again.
    pub(super) fn scaled_again(&self, grad: Tensor<1>) -> Tensor<1> {
        times(grad, self.inv_scale.recip())
    }
}

impl StepNorms for TensorNorms {
    fn gradient(&self) -> Result<Option<f64>, WsamError> {
        self.gradient.as_ref().map(read_scalar).transpose()
    }

    fn perturbed(&self) -> Result<Option<f64>, WsamError> {
        self.perturbed.as_ref().map(read_scalar).transpose()
    }

    fn outcome(&self) -> Result<Outcome, WsamError> {
        let Finite { gradient, perturbed } = self.finite.read()?;
        Ok(self.policy.outcome(self.lean, gradient, perturbed))
    }
}

/// Divides the gradients by the loss scale.
pub(super) fn unscaled(mut batches: Vec<Batch>, inv_scale: f64) -> Vec<Batch> {
    for Batch { entry, .. } in &mut batches {
        entry.grad = times(entry.grad.clone(), inv_scale);
    }
    batches
}

fn times(tensor: Tensor<1>, factor: f64) -> Tensor<1> {
    if factor == 1.0 { tensor } else { tensor * factor }
}

/// Returns `w + e_w` of every batch, and `||g||` if the step or the caller needs it.
pub(super) fn perturb(
    context: StepContext<'_>,
    batches: &[Batch],
    lean: bool,
) -> (Vec<Tensor<1>>, TensorNorms) {
    let StepContext { hyper, track_norms, inv_scale, .. } = context;
    let policy = hyper.non_finite;
    let groups: Vec<InGroup> = batches.iter().map(|batch| context.in_group(&batch.entry)).collect();
    let divisors: Vec<_> = (0..hyper.scopes())
        .map(|scope| {
            let is_inside = |group: &InGroup| group.perturbed && group.scope == scope;
            let inside = batches.iter().zip(&groups).filter(|(_, group)| is_inside(group)).map(
                |(Batch { entry, by_rows, .. }, group)| match group.adaptive {
                    true => (*by_rows, entry.weight.clone() * entry.grad.clone()),
                    false => (*by_rows, entry.grad.clone()),
                },
            );
            // A scope without parameters needs no norm.
            groups.iter().any(is_inside).then(|| global_norm(inside))
        })
        .collect();
    let gradient = match &divisors[0] {
        Some(norm) if hyper.perturbs_by_gradient_norm() => Some(norm.clone()),
        _ if hyper.clips_gradient() || track_norms => Some(global_norm(gradients(batches))),
        _ => None,
    };
    // A norm is finite only if all gradients in it are, so only the others are looked through.
    let outside = |(_, group): &(&Batch, &InGroup)| gradient.is_none() && !group.perturbed;
    let outside = batches.iter().zip(&groups).filter(outside);
    let flag = check_finite(policy, outside.map(|(batch, _)| batch.entry.grad.clone()));
    let flag = check_norms(policy, flag, divisors.iter().flatten().chain(&gradient));
    let finite = FiniteFlags { gradient: flag, perturbed: None };
    let skipped = finite.skipped(policy);
    let divisors: Vec<_> =
        divisors.into_iter().map(|norm| norm.map(|norm| norm + hyper.epsilon)).collect();
    let perturbed = batches.iter().zip(&groups).map(|(Batch { entry, .. }, group)| {
        let divisor = divisors[group.scope].as_ref().filter(|_| group.perturbed);
        let Some(divisor) = divisor else { return entry.weight.clone() };
        // Divide first: |g| / ||g|| is at most 1, while rho / ||g|| may overflow.
        let mut e = entry.grad.clone() / divisor.clone() * group.rho;
        if group.adaptive {
            e = e * entry.weight.clone() * entry.weight.clone();
        }
        keep_where(&skipped, entry.weight.clone() + e, || entry.weight.clone())
    });
    (
        perturbed.collect(),
        TensorNorms { gradient, perturbed: None, finite, policy, lean, inv_scale },
    )
}

fn gradients(batches: &[Batch]) -> impl Iterator<Item = (bool, Tensor<1>)> + Clone + '_ {
    batches.iter().map(|batch| (batch.by_rows, batch.entry.grad.clone()))
}

/// Divides `g~` by the loss scale. Adds its norm, if the step or the caller needs it, and whether it is finite to
/// `norms`. Each tensor comes with whether it is reduced by rows.
pub(super) fn unscale_and_check(
    context: StepContext<'_>,
    grads_perturbed: Vec<(bool, Tensor<1>)>,
    norms: &mut TensorNorms,
) -> Vec<Tensor<1>> {
    let unscaled = |(by_rows, grad)| (by_rows, times(grad, norms.inv_scale));
    let grads_perturbed: Vec<_> = grads_perturbed.into_iter().map(unscaled).collect();
    let wanted = context.hyper.clip.is_some() || context.track_norms;
    norms.perturbed = wanted.then(|| global_norm(grads_perturbed.iter().cloned()));
    let grads_perturbed: Vec<_> = grads_perturbed.into_iter().map(|(_, grad)| grad).collect();
    let unchecked = grads_perturbed.iter().filter(|_| norms.perturbed.is_none());
    let flag = check_finite(norms.policy, unchecked.cloned());
    norms.finite.perturbed = check_norms(norms.policy, flag, norms.perturbed.iter());
    grads_perturbed
}

/// Returns `||g||` of a step without a second pass, if it clips, and whether `g` is finite.
pub(super) fn check_gradient(context: StepContext<'_>, batches: &[Batch]) -> TensorNorms {
    let policy = context.hyper.non_finite;
    let gradient = context.hyper.clips_gradient().then(|| global_norm(gradients(batches)));
    let unchecked = gradients(batches).filter(|_| gradient.is_none());
    let flag = check_finite(policy, unchecked.map(|(_, grad)| grad));
    let flag = check_norms(policy, flag, gradient.iter());
    TensorNorms {
        gradient,
        perturbed: None,
        finite: FiniteFlags { gradient: flag, perturbed: None },
        policy,
        lean: false,
        inv_scale: context.inv_scale,
    }
}

pub(super) fn scale_of_g(hyper: &Hyperparameters, norms: &TensorNorms) -> Option<Tensor<1>> {
    clip_factor(hyper.clip.filter(|_| hyper.clips_gradient()), &norms.gradient)
}

pub(super) fn clip_factor(clip: Option<Clip>, norm: &Option<Tensor<1>>) -> Option<Tensor<1>> {
    let (clip, norm) = (clip?, norm.clone()?);
    Some(((norm + CLIP_EPSILON).recip() * clip.max_norm).clamp_max(1.0))
}

pub(super) fn scaled(tensor: Tensor<1>, factor: &Option<Tensor<1>>) -> Tensor<1> {
    match factor {
        Some(factor) => tensor * factor.clone(),
        None => tensor,
    }
}

/// The L2 norm over all tensors, scaled by the largest magnitude so that no square overflows or underflows, for
/// gradients from 1e-30 to 1e+30. A NaN gives NaN; otherwise an infinity, or a norm beyond the tensors' type,
/// gives infinity.
///
/// Each tensor comes with whether it is reduced by rows: first each row of [`ROW`] elements, then the results.
fn global_norm(tensors: impl Iterator<Item = (bool, Tensor<1>)> + Clone) -> Tensor<1> {
    let filled = tensors.filter(|(_, tensor)| tensor.dims()[0] > 0);
    let largest: Vec<_> = filled
        .clone()
        .map(|(by_rows, tensor)| match by_rows {
            true => rows(tensor.abs()).max_dim(1).max(),
            false => tensor.abs().max(),
        })
        .collect();
    let Some(device) = largest.first().map(Tensor::device) else {
        return Tensor::zeros([1], &Default::default());
    };
    let largest = Tensor::cat(largest, 0).max();
    // Clamp the scale, so that a zero gradient gives 0 / tiny instead of 0 / 0, and an infinite one infinity /
    // large instead of a NaN.
    let most = if largest.dtype() == DType::F64 { f64::MAX } else { f64::from(f32::MAX) };
    let scale = largest.clone().clamp(f64::from(f32::MIN_POSITIVE), most);
    let sum = filled.fold(Tensor::zeros([1], &device), |sum, (by_rows, tensor)| {
        let scaled = tensor / scale.clone();
        let squares = scaled.clone() * scaled;
        sum + if by_rows { rows(squares).sum_dim(1).sum() } else { squares.sum() }
    });
    largest * sum.sqrt()
}

fn rows(tensor: Tensor<1>) -> Tensor<2> {
    let len = tensor.dims()[0];
    tensor.reshape([len / ROW, ROW])
}
