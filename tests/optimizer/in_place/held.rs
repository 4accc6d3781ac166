//! Tensors that the caller keeps while a step runs.

use super::super::Target;
use super::super::nets::{Mlp, grads, parameters, text};
use super::{check_in_place, stepped};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

/// Reads the values of what was kept.
type Kept = Box<dyn FnOnce() -> Result<Vec<f32>, String>>;

/// Keeps something of a model, which it must not evaluate.
type Keep = fn(&Mlp) -> Kept;

fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, String> {
    tensor.into_data().try_to_vec::<f32>().map_err(|error| format!("{error:?}"))
}

fn later<const D: usize>(tensor: Tensor<D>) -> Kept {
    Box::new(move || read(tensor))
}

fn all(model: &Mlp) -> Result<Vec<f32>, String> {
    Ok(parameters(model).into_iter().flat_map(|(_, values)| values).collect())
}

/// Whether a step is in place while it is kept. Copies and results that refer to the memory, or were not computed
/// yet, do not refer to the tensor.
const KEPT: &[(&str, bool, Keep)] = &[
    ("a clone", false, |model| {
        let clone = model.clone();
        Box::new(move || all(&clone))
    }),
    ("a clone of one layer", false, |model| {
        let layer = model.b.clone();
        Box::new(move || read(layer.weight.val()))
    }),
    ("a valid copy", false, |model| {
        let valid = model.valid();
        Box::new(move || all(&valid))
    }),
    ("a value", false, |model| later(model.a.weight.val())),
    ("an inner value", false, |model| later(model.a.weight.val().inner())),
    ("a detached value", false, |model| later(model.a.weight.val().detach())),
    ("a slice", true, |model| later(model.a.weight.val().inner().narrow(0, 1, 2))),
    ("an evaluated slice", true, |model| {
        let slice = model.a.weight.val().inner().narrow(0, 1, 2);
        let _ = slice.clone().into_data();
        later(slice)
    }),
    ("a reshaped view", true, |model| later(model.a.weight.val().inner().reshape([95]))),
    ("an evaluated transposed view", true, |model| {
        let view = model.a.weight.val().inner().transpose();
        let _ = view.clone().into_data();
        later(view)
    }),
    ("a pending product", true, |model| later(model.a.weight.val().inner() * 2.0)),
    ("a pending sum", true, |model| later(model.a.weight.val().inner().sum_dim(0))),
    ("a pending product on the graph", true, |model| later(model.b.weight.val() * 3.0)),
    ("a moving average", true, |model| {
        let average = Tensor::<2>::ones([5, 19], &model.a.weight.device().inner()) * 0.9;
        later(average + model.a.weight.val().inner() * 0.1)
    }),
    ("a graph that was not run backward", false, |model| {
        let (weight, x) = (model.a.weight.clone(), model.b.weight.val().inner());
        let loss = weight.val().matmul(x).powi_scalar(2).sum();
        // The gradient of the first factor is computed from the second one, and the other way round.
        Box::new(move || {
            let grads = loss.backward();
            read(weight.grad(&grads).ok_or("no gradient")?)
        })
    }),
    ("a record", true, |model| {
        let records: Vec<_> =
            parameters(model).into_iter().flat_map(|(_, values)| values).collect();
        Box::new(move || Ok(records))
    }),
    ("a copy on the device", true, |model| {
        /// Copies each parameter.
        struct Copy;
        impl ModuleMapper for Copy {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|value| Tensor::from_inner(value.inner() - 0.0).require_grad())
            }
        }
        let copy = model.clone().map(&mut Copy);
        Box::new(move || all(&copy))
    }),
];

/// What was kept before a step has the values from before the step.
pub(crate) fn first_pass(target: &Target) -> Result<(), String> {
    for (what, in_place, keep) in KEPT {
        let want = keep(&stepped(target)?.1)()?;
        let (mut optim, mut model) = stepped(target)?;
        let kept = keep(&model);
        for batch in 2..5 {
            model = optim.step(0.3, model, |model| model.exact(batch)).map_err(text)?.0;
            if batch == 2 {
                check_in_place(what, &optim, *in_place)?;
            }
        }
        equal(&format!("{what}, kept before the steps"), &kept()?, &want)?;
        drop(model);
    }
    Ok(())
}

/// What was kept of the perturbed model has the values at `w + e_w`.
pub(crate) fn second_pass(target: &Target) -> Result<(), String> {
    for (what, _, keep) in KEPT {
        for lean in [false, true] {
            let step = |keep: &mut dyn FnMut(&Mlp)| -> Result<Vec<f32>, String> {
                let (mut optim, model) = stepped(target)?;
                let first = grads(&model.exact(2), &model);
                let model = if lean {
                    let ascended = optim.lean_ascend(0.3, model, first).map_err(text)?;
                    let second = grads(&ascended.model().exact(2), ascended.model());
                    keep(ascended.model());
                    optim.lean_descend(ascended, second).map_err(text)?
                } else {
                    let ascended = optim.ascend(model, first).map_err(text)?;
                    let second = grads(&ascended.model().exact(2), ascended.model());
                    keep(ascended.model());
                    optim.descend(0.3, ascended, second).map_err(text)?
                };
                let model = optim.step(0.3, model, |model| model.exact(3)).map_err(text)?.0;
                all(&model)
            };
            let (mut want, mut kept) = (None, None);
            let undisturbed = step(&mut |model| want = Some(keep(model)()))?;
            let disturbed = step(&mut |model| kept = Some(keep(model)))?;
            let (Some(want), Some(kept)) = (want, kept) else {
                return Err("nothing was kept".to_owned());
            };
            let what = format!("{what}, kept of the perturbed model, lean {lean}");
            equal(&what, &kept()?, &want?)?;
            equal(&format!("{what}: the model"), &disturbed, &undisturbed)?;
        }
    }
    Ok(())
}

pub(super) fn equal(what: &str, got: &[f32], want: &[f32]) -> Result<(), String> {
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    if bits(got) == bits(want) && !got.is_empty() {
        return Ok(());
    }
    Err(format!("{what}: {got:?}, expected {want:?}"))
}
