//! Norms and checks of gradients, and the perturbation.

use super::batch::{Batch, ROW};
use super::finite::{DeviceBool, FiniteFlags, check_finite, check_norms, keep_where};
use crate::method::{CLIP_EPSILON, Clip, Hyperparameters, InGroup, Method, NonFinite, Outcome};
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
        let Finite { gradient, perturbed } = self.finite.read()?.finite;
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

/// Norms of the norm scopes, `None` for a scope without perturbed parameters.
pub(super) type ScopeNorms = Vec<Option<Tensor<1>>>;

/// Whether a batch counts in the norm of a scope.
pub(super) fn is_inside(group: &InGroup, scope: usize) -> bool {
    group.perturbed && group.scope == scope
}

/// Returns the norm over the perturbed batches of each scope, of one tensor of each batch.
pub(super) fn norms_by_scope(
    context: StepContext<'_>,
    batches: &[Batch],
    tensor_of: impl Fn(usize) -> Tensor<1>,
) -> ScopeNorms {
    let groups = in_groups(context, batches);
    let of_scope = |scope: usize| {
        let inside = groups.iter().enumerate().filter(|(_, group)| is_inside(group, scope));
        let inside = inside.map(|(place, _)| (batches[place].by_rows, tensor_of(place)));
        // A scope without parameters needs no norm.
        groups.iter().any(|group| is_inside(group, scope)).then(|| global_norm(inside))
    };
    (0..context.hyper.scopes()).map(of_scope).collect()
}

/// The resolved hyperparameters of each batch.
pub(super) fn in_groups(context: StepContext<'_>, batches: &[Batch]) -> Vec<InGroup> {
    batches.iter().map(|batch| context.in_group(&batch.entry)).collect()
}

/// The gradient of each batch.
pub(super) fn gradients_of(batches: &[Batch]) -> Vec<Tensor<1>> {
    batches.iter().map(|batch| batch.entry.grad.clone()).collect()
}

/// Returns `w + e_w` of every batch, with `e_w` along one tensor of each batch; `||g||`, if the step or the caller
/// needs it; and the norms that the perturbations are divided by, without epsilon.
pub(super) fn perturb(
    context: StepContext<'_>,
    batches: &[Batch],
    along: &[Tensor<1>],
    lean: bool,
) -> (Vec<Tensor<1>>, TensorNorms, ScopeNorms) {
    let StepContext { hyper, inv_scale, .. } = context;
    let policy = hyper.non_finite;
    let groups = in_groups(context, batches);
    let divisors = norms_by_scope(context, batches, |place| match groups[place].adaptive {
        true => batches[place].entry.weight.clone() * along[place].clone(),
        false => along[place].clone(),
    });
    let is_along_gradient = !matches!(hyper.method, Method::FriendlySam { .. });
    let gradient = match &divisors[0] {
        Some(norm) if is_along_gradient && hyper.perturbs_by_gradient_norm() => Some(norm.clone()),
        _ if hyper.clips_gradient() || context.tracks_gradient() => {
            Some(global_norm(gradients(batches)))
        }
        _ => None,
    };
    // A norm is finite only if all gradients in it are, so only the others are looked through.
    let outside = |(_, group): &(&Batch, &InGroup)| gradient.is_none() && !group.perturbed;
    let outside = batches.iter().zip(&groups).filter(outside);
    let flag = check_finite(policy, outside.map(|(batch, _)| batch.entry.grad.clone()));
    let flag = check_norms(policy, flag, divisors.iter().flatten().chain(&gradient));
    let finite = finite_gradient(context, flag, &gradient);
    let skipped = finite.skipped(policy);
    let with_epsilon = |norm: &Option<Tensor<1>>| norm.clone().map(|norm| norm + hyper.epsilon);
    let divided: Vec<_> = divisors.iter().map(with_epsilon).collect();
    let perturbed = batches.iter().zip(&groups).zip(along).map(|((batch, group), along)| {
        let weight = &batch.entry.weight;
        let divisor = divided[group.scope].as_ref().filter(|_| group.perturbed);
        let Some(divisor) = divisor else { return weight.clone() };
        // Divide first: |g| / ||g|| is at most 1, while rho / ||g|| may overflow.
        let mut e = along.clone() / divisor.clone() * group.rho;
        if group.adaptive {
            e = e * weight.clone() * weight.clone();
        }
        keep_where(&skipped, weight.clone() + e, || weight.clone())
    });
    let norms = TensorNorms { gradient, perturbed: None, finite, policy, lean, inv_scale };
    (perturbed.collect(), norms, divisors)
}

/// Whether `g` is finite, with its norm if it is read with the outcome.
fn finite_gradient(
    context: StepContext<'_>,
    flag: Option<DeviceBool>,
    norm: &Option<Tensor<1>>,
) -> FiniteFlags {
    let gradient_norm = norm.clone().filter(|_| context.reads_norm);
    FiniteFlags { gradient: flag, perturbed: None, gradient_norm }
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

/// Returns `||g||` of a step over one gradient, if it `clips` or the caller needs it, and whether `g` and `lengths`,
/// norms of parts of it, are finite.
pub(super) fn check_gradient(
    context: StepContext<'_>,
    batches: &[Batch],
    clips: bool,
    lengths: &ScopeNorms,
) -> TensorNorms {
    let policy = context.hyper.non_finite;
    let takes_norm = clips || context.tracks_gradient();
    let gradient = takes_norm.then(|| global_norm(gradients(batches)));
    let unchecked = gradients(batches).filter(|_| gradient.is_none());
    let flag = check_finite(policy, unchecked.map(|(_, grad)| grad));
    let flag = check_norms(policy, flag, gradient.iter().chain(lengths.iter().flatten()));
    let finite = finite_gradient(context, flag, &gradient);
    let inv_scale = context.inv_scale;
    TensorNorms { gradient, perturbed: None, finite, policy, lean: false, inv_scale }
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
pub(super) fn global_norm(tensors: impl Iterator<Item = (bool, Tensor<1>)> + Clone) -> Tensor<1> {
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

pub(super) fn rows(tensor: Tensor<1>) -> Tensor<2> {
    let len = tensor.dims()[0];
    tensor.reshape([len / ROW, ROW])
}
