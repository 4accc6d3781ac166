//! The phases of Momentum-SAM's step over a module, on any route.

use super::copies::assign;
use super::error::WsamError;
use super::groups::group_of;
use super::module_steps::{AscendedModels, collect_entries, finish, stepped_copy};
use super::param_entries::{ParamEntry, step_weights};
use super::params::{StepParams, TensorLayout};
use super::rates::Rates;
use super::report::Norms;
use super::step_backend::{StepBackend, StepContext};
use super::walk::{ParamVisitor, Path, visit_params};
use burn::module::{Module, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use std::collections::HashMap;

/// Returns the model at the perturbed weights, and the state for the step. The model shares everything else with
/// `model`, and so its running statistics too, which the only pass of the step advances.
pub(crate) fn ascend<R: StepBackend, M: Module>(
    backend: &mut R,
    context: StepContext<'_>,
    model: &M,
) -> Result<(M, R::MomentumState), WsamError> {
    let (entries, params) = collect_momenta(backend, context, model)?;
    let (perturbed, state) = backend.perturb_along_momentum(context, entries)?;
    Ok((assign::<R::Layout, M>(model.clone(), params.values(perturbed)), state))
}

/// Returns the stepped model, or the unchanged `anchor` on an error.
pub(crate) fn descend<R: StepBackend, M: Module>(
    backend: &mut R,
    context: StepContext<'_>,
    rates: &Rates,
    state: R::MomentumState,
    (perturbed, anchor): AscendedModels<M>,
    grads: GradientsParams,
) -> Result<(M, Norms), (M, WsamError)> {
    let only_pass = perturbed.as_ref().unwrap_or(&anchor);
    let collected = collect_entries(backend, context, only_pass, grads);
    let stepped = collected.and_then(|collected| {
        let params = collected.params();
        let rates = rates.of(&params.names)?;
        let weights = step_weights::<R::Layout, M>(&anchor, &params)?;
        // The entries were collected at the perturbed weights. The step starts from the anchor's.
        let (entries, perturbed) = collected
            .entries
            .into_iter()
            .zip(weights)
            .map(|(entry, weight)| {
                let perturbed = entry.weight;
                (ParamEntry { weight, ..entry }, perturbed)
            })
            .unzip();
        let build = |tensors| Some(stepped_copy::<R, M>(&anchor, &params, tensors));
        backend.momentum_step(context, &rates, state, entries, perturbed, build)
    });
    drop(perturbed);
    finish(backend, anchor, stepped)
}

type Momenta<R> = (Vec<ParamEntry<super::step_backend::TensorOf<R>>>, StepParams);

/// Collects the perturbed parameters that have a momentum, with their weights in place of gradients. Of several
/// parameters with the same id, the first that requires a gradient takes part, or the first one if none does.
fn collect_momenta<R: StepBackend, M: Module>(
    backend: &R,
    context: StepContext<'_>,
    model: &M,
) -> Result<Momenta<R>, WsamError> {
    let mut collector =
        Momentum { backend, context, found: Vec::new(), seen: HashMap::new(), error: None };
    visit_params(model, &mut collector);
    if let Some(error) = collector.error {
        return Err(error);
    }
    let before = collector.seen.into_iter().filter_map(|(id, seen)| {
        (seen.before > 0 && seen.place.is_some()).then_some((id, seen.before))
    });
    let before = before.collect();
    let entries = collector.found;
    let names = entries.iter().map(|entry| (entry.id, entry.path.clone())).collect();
    Ok((entries, StepParams { names, before }))
}

/// The parameters of one id so far.
#[derive(Default)]
struct Seen {
    /// Index of the entry.
    place: Option<usize>,
    /// Whether the entry's parameter requires a gradient.
    requires_grad: bool,
    /// Number of parameters with this id before the entry's.
    before: usize,
    count: usize,
}

struct Momentum<'a, R: StepBackend> {
    backend: &'a R,
    context: StepContext<'a>,
    found: Vec<ParamEntry<super::step_backend::TensorOf<R>>>,
    seen: HashMap<ParamId, Seen>,
    error: Option<WsamError>,
}

impl<R: StepBackend> Momentum<'_, R> {
    fn take<const D: usize>(
        &mut self,
        param: &Param<Tensor<D>>,
        path: &Path,
    ) -> Result<(), WsamError> {
        let seen = self.seen.entry(param.id).or_default();
        seen.count += 1;
        let requires_grad = param.is_require_grad();
        if seen.place.is_some() && (seen.requires_grad || !requires_grad) {
            return Ok(());
        }
        if !self.backend.has_momentum(self.context, param.id) {
            return Ok(());
        }
        let value = param.val().without_autodiff();
        let (len, dtype) = (value.shape().num_elements(), value.dtype());
        if self.backend.state_len(param.id) != Some(len) || !R::TYPES.0.contains(&dtype) {
            // Another parameter's state, or a type that takes no steps: the descent says so.
            return Ok(());
        }
        let path = path.to_string();
        let group = group_of(self.context.groups, param.id, &path);
        let weight = R::Layout::from_tensor(value)?;
        let grad = weight.clone();
        let entry = ParamEntry { id: param.id, path, group, len, dtype, weight, grad };
        if !self.context.in_group(&entry).perturbed {
            return Ok(());
        }
        (seen.requires_grad, seen.before) = (requires_grad, seen.count - 1);
        match seen.place {
            Some(place) => self.found[place] = entry,
            None => {
                seen.place = Some(self.found.len());
                self.found.push(entry);
            }
        }
        Ok(())
    }
}

impl<R: StepBackend> ParamVisitor for Momentum<'_, R> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, path: &Path) {
        if self.error.is_none() {
            self.error = self.take(param, path).err();
        }
    }
}
