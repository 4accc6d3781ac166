//! Weights that the strategy passes to the learner, and the parameters that it passes them for.

use crate::optim::walk::{for_each_id, for_each_param};
use burn::module::{Module, ParamId};
use burn::optim::GradientsParams;
use std::collections::{HashMap, HashSet};

/// Values of the `wanted` parameters, by id, without autodiff. Of several parameters with the same id, the first
/// one, as in Burn's optimizers.
pub(super) fn weights<M: Module>(model: &M, wanted: impl Fn(ParamId) -> bool) -> GradientsParams {
    let mut found = GradientsParams::new();
    for_each_id(model, |param, _| {
        if wanted(param.id()) {
            param.register_value(&mut found);
        }
    });
    found
}

/// Ids of the trainable parameters.
pub(super) fn trainable<M: Module>(model: &M) -> HashSet<ParamId> {
    let mut found = HashSet::new();
    for_each_param(model, |param, _| {
        // A quantised parameter takes no steps, even if it still requires a gradient.
        if param.requires_grad() && param.dtype().is_float() {
            found.insert(param.id());
        }
    });
    found
}

/// Paths of a frozen parameter and a later trainable one with the same id, if the model has such a pair.
pub(super) fn frozen_in_front<M: Module>(model: &M) -> Option<(String, String)> {
    // For each id, the path of the first parameter if it is frozen.
    let mut first: HashMap<ParamId, Option<String>> = HashMap::new();
    let mut found = None;
    for_each_param(model, |param, path| match first.get(&param.id()) {
        Some(Some(frozen)) if param.requires_grad() => {
            found.get_or_insert_with(|| (frozen.clone(), path.to_string()));
        }
        Some(_) => {}
        None => {
            let frozen = (!param.requires_grad()).then(|| path.to_string());
            first.insert(param.id(), frozen);
        }
    });
    found
}

/// Whether a parameter is quantised.
pub(super) fn has_quantised<M: Module>(model: &M) -> bool {
    let mut found = false;
    // A parameter without a value is not quantised, because initialisers do not quantise.
    for_each_param(model, |param, _| found |= param.is_initialized() && !param.dtype().is_float());
    found
}
