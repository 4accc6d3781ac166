//! Directions that WSAM's relatives derive from two gradients: lengths, cosines and orthogonal parts, one of each for
//! each norm scope, over its perturbed parameters. [`Method`] has the equations.
//!
//! Every dot product is one of unit vectors, so nothing overflows or underflows for gradients from 1e-30 to 1e30.

use super::batch::Batch;
use super::norms::{ScopeNorms, gradients_of, in_groups, is_inside, norms_by_scope, rows, scaled};
use super::states::States;
use crate::method::{InGroup, LOOK_SAM_SMALLEST_SINE, Method};
use crate::optim::step_backend::StepContext;
use burn::tensor::{DType, Tensor};

impl States {
    /// What the perturbation of each batch is taken along: `g`, or Friendly-SAM's `g - sigma h`.
    pub(super) fn directions(&self, context: StepContext<'_>, batches: &[Batch]) -> Vec<Tensor<1>> {
        let Method::FriendlySam { sigma, .. } = context.hyper.method else {
            return gradients_of(batches);
        };
        let along = |batch: &Batch| {
            let g = batch.entry.grad.clone();
            let average = self.method_state(&batch.members).filter(|_| sigma != 0.0);
            average.map_or(g.clone(), |h| g - h * sigma)
        };
        batches.iter().map(along).collect()
    }
}

/// Returns `||g||` of each scope, if a descent of the method needs it. `divisors` are the norms that perturbations are
/// divided by, without epsilon: the same ones where they are not adaptive.
pub(super) fn gradient_lengths(
    context: StepContext<'_>,
    batches: &[Batch],
    divisors: ScopeNorms,
) -> ScopeNorms {
    match context.hyper.method {
        Method::Gsam { .. } | Method::LookSam { .. } => {}
        _ => return Vec::new(),
    }
    let is_adaptive = in_groups(context, batches).iter().any(|group| group.adaptive);
    match is_adaptive {
        true => norms_by_scope(context, batches, |place| batches[place].entry.grad.clone()),
        false => divisors,
    }
}

/// `g` and `g~` in one norm scope.
struct Pair {
    /// `||g||`, at least the smallest normal number.
    gradient: Tensor<1>,
    /// `||g~||`, as it is.
    perturbed: Tensor<1>,
    /// `||g~||`, at least the smallest normal number.
    divisor: Tensor<1>,
    /// `<g, g~> / (||g|| ||g~||)`; 0 if one of them is zero.
    cosine: Tensor<1>,
}

/// The pairs of gradients of all scopes. Empty for methods that do not need them.
pub(super) struct Pairs {
    scopes: Vec<Option<Pair>>,
    epsilon: f64,
}

impl Pairs {
    pub(super) fn new(
        context: StepContext<'_>,
        batches: &[Batch],
        lengths: &ScopeNorms,
        grads_perturbed: &[Tensor<1>],
    ) -> Self {
        let epsilon = context.hyper.epsilon;
        if lengths.is_empty() {
            return Self { scopes: Vec::new(), epsilon };
        }
        let groups = in_groups(context, batches);
        let perturbed = norms_by_scope(context, batches, |place| grads_perturbed[place].clone());
        let pair = |(scope, (gradient, perturbed)): (usize, (&Option<Tensor<1>>, _))| {
            let (gradient, perturbed): (Tensor<1>, Tensor<1>) = (gradient.clone()?, perturbed?);
            let (gradient, divisor) =
                (at_least_normal(gradient), at_least_normal(perturbed.clone()));
            let parts = batches.iter().zip(&groups).zip(grads_perturbed);
            let parts = parts.filter(|((_, group), _)| is_inside(group, scope));
            let cosine = parts.map(|((batch, _), perturbed)| {
                let g = batch.entry.grad.clone() / gradient.clone();
                let products = g * (perturbed.clone() / divisor.clone());
                match batch.by_rows {
                    true => rows(products).sum_dim(1).sum(),
                    false => products.sum(),
                }
            });
            let cosine = cosine.reduce(|sum, part| sum + part)?;
            Some(Pair { gradient, perturbed, divisor, cosine })
        };
        let scopes = lengths.iter().zip(perturbed).enumerate().map(pair).collect();
        Self { scopes, epsilon }
    }

    /// `||g~||` of each scope, which overflows before its elements do.
    pub(super) fn perturbed_lengths(&self) -> impl Iterator<Item = &Tensor<1>> {
        self.scopes.iter().flatten().map(|pair| &pair.perturbed)
    }

    /// GSAM's `v`, the part of a batch's `g` that is orthogonal to `g~`. `clipped` is `g` times `scale_g`, and
    /// `g_perturbed` is not clipped.
    pub(super) fn orthogonal_to_perturbed(
        &self,
        group: &InGroup,
        clipped: &Tensor<1>,
        g_perturbed: &Tensor<1>,
        scale_g: &Option<Tensor<1>>,
    ) -> Tensor<1> {
        let pair = self.scopes.get(group.scope).and_then(Option::as_ref);
        let Some(Pair { gradient, divisor, cosine, .. }) = pair else { return clipped.clone() };
        // <g, g~> / (||g|| ||g~|| + eps), times ||g|| / (||g~|| + eps), for the unit vector of g~.
        let damped = |length: &Tensor<1>| length.clone().recip() * self.epsilon;
        let cosine = cosine.clone() / (damped(gradient) / divisor.clone() + 1.0);
        let along = cosine * gradient.clone() / (damped(divisor) + 1.0);
        let unit = g_perturbed.clone() / divisor.clone();
        clipped.clone() - unit * scaled(along, scale_g)
    }

    /// LookSAM's directions, the unit parts of `g~` orthogonal to `g`. `None` for batches that are not perturbed.
    pub(super) fn directions(
        &self,
        context: StepContext<'_>,
        batches: &[Batch],
        grads_perturbed: &[Tensor<1>],
    ) -> Vec<Option<Tensor<1>>> {
        let groups = in_groups(context, batches);
        let part = |((batch, group), g_perturbed): ((&Batch, &InGroup), &Tensor<1>)| {
            let pair = self.scopes.get(group.scope).and_then(Option::as_ref);
            let Pair { gradient, divisor, cosine, .. } = pair.filter(|_| group.perturbed)?;
            // v / ||g~||, of the unit vectors of both gradients.
            let damping = gradient.clone().recip() * self.epsilon / gradient.clone() + 1.0;
            let unit = batch.entry.grad.clone() / gradient.clone();
            Some(g_perturbed.clone() / divisor.clone() - unit * (cosine.clone() / damping))
        };
        let parts: Vec<_> = batches.iter().zip(&groups).zip(grads_perturbed).map(part).collect();
        let of = |place: usize| match &parts[place] {
            Some(part) => part.clone(),
            None => batches[place].entry.grad.zeros_like(),
        };
        let sines = norms_by_scope(context, batches, of);
        let direction = |(part, group): (Option<Tensor<1>>, &InGroup)| {
            let (part, sine) = (part?, sines[group.scope].clone()?);
            // False for a NaN, which is stored.
            let is_small = sine.clone().lower_equal_elem(LOOK_SAM_SMALLEST_SINE);
            let unit = part / sine;
            let mask = is_small.expand(unit.shape());
            Some(unit.mask_fill(mask, 0.0))
        };
        parts.into_iter().zip(&groups).map(direction).collect()
    }
}

/// The length, or the smallest normal number of its type if that is larger.
fn at_least_normal(length: Tensor<1>) -> Tensor<1> {
    let least = match length.dtype() {
        DType::F64 => f64::MIN_POSITIVE,
        _ => f64::from(f32::MIN_POSITIVE),
    };
    length.clamp_min(least)
}
