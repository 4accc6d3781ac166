//! Runs one configuration through six steps. The loss is linear in the weights, so its gradient is known exactly on
//! every backend and in both precisions.

use super::{
    BASE, BURN, CALLS, Case, LEAN, MASKS, MASTERS, NON_FINITE, PRECISION, PROPAGATE, ROUNDING,
    init, oracle_config,
};
use crate::Target;
use crate::nets::text;
use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Distribution, FloatDType, Tensor, TensorData};
use burn_wsam::reference::Oracle;
use burn_wsam::{Perturbation, RoutePolicy, Wsam, WsamError};
use burn_wsam_support::target::flex;

const STEPS: usize = 6;
/// The step whose loss is NaN in one pass.
const BAD: usize = 2;
/// Steps before the run is saved.
const SAVED: usize = 4;
const LR: f64 = 0.05;

const SINGLE: usize = 37;
const HALF: [usize; 2] = [7, 9];
const STILL: usize = 5;

#[derive(Module, Debug)]
struct Net {
    single: Param<Tensor<1>>,
    half: Param<Tensor<2>>,
    still: Param<Tensor<1>>,
}

type Tensors = Vec<Vec<f64>>;

/// Multiples of 1/64 below 1. They, half of them and sums of two of them are exact in f16.
fn values(seed: usize) -> Tensors {
    let value = |i: usize| (((i * 7919 + seed * 104_729 + 31) % 127) as f64 - 63.0) / 64.0;
    let lens = [SINGLE, HALF[0] * HALF[1], STILL];
    lens.iter().map(|len| (0..*len).map(|i| value(i + 200 * len)).collect()).collect()
}

fn tensor<const D: usize>(
    values: &[f64],
    shape: [usize; D],
    dtype: DType,
    device: &Device,
) -> Tensor<D> {
    let data = TensorData::new(values.to_vec(), shape).convert_dtype(dtype);
    Tensor::from_data(data, (device, dtype))
}

fn half_type(case: &Case) -> DType {
    if case[PRECISION] == 1 { DType::F16 } else { DType::F32 }
}

impl Net {
    fn new(case: &Case, device: &Device) -> Self {
        let [single, half, still] = &values(0)[..] else { unreachable!() };
        let f32 = DType::F32;
        Self {
            single: Param::from_tensor(tensor(single, [SINGLE], f32, device)),
            half: Param::from_tensor(tensor(half, HALF, half_type(case), device)),
            still: Param::from_tensor(tensor(still, [STILL], f32, device)),
        }
    }

    /// Sum of the products of weights and coefficients.
    fn loss(&self, coefficients: &Tensors) -> Tensor<1> {
        let device = self.single.val().device();
        let half_type = self.half.val().dtype();
        let [single, half, still] = &coefficients[..] else { unreachable!() };
        let single = self.single.val() * tensor(single, [SINGLE], DType::F32, &device);
        let half = self.half.val() * tensor(half, HALF, half_type, &device);
        let still = self.still.val() * tensor(still, [STILL], DType::F32, &device);
        single.sum() + half.cast(FloatDType::F32).sum() + still.sum()
    }

    fn read(&self) -> Tensors {
        vec![
            self.single.val().into_data().iter::<f64>().collect(),
            self.half.val().into_data().iter::<f64>().collect(),
            self.still.val().into_data().iter::<f64>().collect(),
        ]
    }
}

/// A training run and the oracle that follows it.
struct Run {
    case: Case,
    optim: Wsam,
    model: Net,
    oracle: Oracle,
}

/// Gradients and masks of the two passes of a step.
#[derive(Default)]
struct PassRecord {
    /// Gradients of each pass, averaged over its micro-batches.
    passes: [Option<Tensors>; 2],
    masks: Vec<Vec<f64>>,
    error: Option<String>,
}

impl Run {
    fn new(case: &Case, target: &Target) -> Result<Self, String> {
        let hyper = oracle_config(case).hyperparameters().map_err(text)?;
        let model = Net::new(case, &target.device);
        // The groups of the three parameters, as far as the configuration has groups.
        let groups = [0, 1, 2].map(|group| if group <= hyper.groups.len() { group } else { 0 });
        let oracle = Oracle::with_groups(hyper, model.read(), &groups).map_err(text)?;
        Ok(Self { case: *case, optim: init(case, target)?, model, oracle })
    }

    fn parts(&self) -> usize {
        if self.case[CALLS] >= 2 { 2 } else { 1 }
    }

    /// The pass whose loss is NaN. For a lean step it is the first, because its first phase cannot be undone.
    fn bad_pass(&self, step: usize) -> Option<usize> {
        let is_bad = step == BAD && self.case[NON_FINITE] != PROPAGATE;
        let others = self.case.iter().sum::<usize>() - self.case[ROUNDING];
        let by_case = others % 2;
        is_bad.then_some(if self.case[LEAN] == 1 { 0 } else { by_case })
    }

    fn step(&mut self, step: usize) -> Result<(), String> {
        let mut seen = PassRecord::default();
        let before = self.model.read();
        let (result, want) = self.take(step, &mut seen)?;
        if let Some(error) = seen.error {
            return Err(error);
        }
        let refused = matches!(result, Err(WsamError::NonFinite { .. }));
        if let (Err(error), false) = (&result, refused) {
            return Err(error.to_string());
        }
        let [Some(g), Some(g_perturbed)] = seen.passes else {
            // A refused lean step has not run its second pass.
            return if refused && self.model.read() == before {
                Ok(())
            } else {
                Err(format!("step {step} ran one pass"))
            };
        };
        if self.parts() == 2 || want.is_none() {
            self.oracle.ascent(&g).map_err(text)?;
        }
        self.oracle.descent(LR, &g_perturbed).map_err(text)?;
        let skips = self.bad_pass(step).is_some_and(|pass| pass == 0 || self.case[NON_FINITE] != 1);
        if refused != (skips && self.case[NON_FINITE] == 2) {
            return Err(format!("step {step}, refused: {refused}"));
        }
        if skips && self.model.read() != before {
            return Err(format!("step {step} was skipped and changed the weights"));
        }
        let got = self.model.read();
        near(&format!("step {step}"), &got, self.oracle.weights(), self.rounding())?;
        if self.case[PRECISION] == 1 && self.case[MASTERS] == 0 {
            // The next step starts from the rounded weights.
            let mut weights = self.oracle.weights().to_vec();
            weights[1].clone_from(&got[1]);
            self.oracle.set_weights(weights).map_err(text)?;
        }
        Ok(())
    }

    /// Bound on the error that rounding to f16 adds to a weight.
    fn rounding(&self) -> Rounding {
        match (self.case[PRECISION], self.case[BASE], self.case[LEAN]) {
            (0, ..) => Rounding::NONE,
            // Burn's optimizers compute in f16, with terms of order 1.
            (_, BURN, _) => Rounding { half_ulps: 8.0, min_magnitude: 1.0 },
            // A lean step also rounds the value that it stores between its phases, which is of order 1.
            (_, _, 1) => Rounding { half_ulps: 2.002, min_magnitude: 1.0 },
            _ => Rounding { half_ulps: 1.001, min_magnitude: 0.0 },
        }
    }

    /// Takes the step by the case's calls. The second value is the oracle's `w + e_w`, if it was compared.
    #[allow(clippy::type_complexity)]
    fn take(
        &mut self,
        step: usize,
        seen: &mut PassRecord,
    ) -> Result<(Result<(), WsamError>, Option<Tensors>), String> {
        let (parts, bad) = (self.parts(), self.bad_pass(step));
        let draws = self.case[MASKS] == 1 && self.case[CALLS] != 1;
        let lean = self.case[LEAN] == 1;
        let perturbed_rounding = match (self.case[PRECISION], self.case[ROUNDING]) {
            (0, _) => Rounding::NONE,
            (_, 0) => Rounding { half_ulps: 1.001, min_magnitude: 0.0 },
            // Stochastic rounding may choose either neighbour.
            _ => Rounding { half_ulps: 2.002, min_magnitude: 0.0 },
        };
        let device = self.model.single.val().device().inner();
        let model = self.model.clone();
        let (oracle, optim) = (&mut self.oracle, &mut self.optim);
        let (mut calls, mut want) = (0, None);
        // One pass over one micro-batch.
        let mut pass = |model: &Net, seen: &mut PassRecord, part: usize, pass: usize| {
            calls += 1;
            let mut coefficients = values(100 * (step + 1) + 10 * pass + part);
            if draws {
                let mask: Tensor<1> =
                    Tensor::random([SINGLE], Distribution::Bernoulli(0.5), &device);
                let mask: Vec<f64> = mask.into_data().iter::<f64>().collect();
                if pass == 1 && seen.masks.get(part) != Some(&mask) {
                    seen.error = Some(format!("step {step}: the masks of the passes differ"));
                }
                coefficients[0].iter_mut().zip(&mask).for_each(|(c, mask)| *c *= mask);
                if pass == 0 {
                    seen.masks.push(mask);
                }
            }
            let factor = if bad == Some(pass) { f64::NAN } else { 1.0 };
            let share = factor / parts as f64;
            let sum = seen.passes[pass]
                .get_or_insert_with(|| coefficients.iter().map(|c| vec![0.0; c.len()]).collect());
            for (sum, coefficients) in sum.iter_mut().zip(&coefficients) {
                sum.iter_mut().zip(coefficients).for_each(|(sum, c)| *sum += share * c);
            }
            if pass == 1 && parts == 1 {
                let ascended = seen.passes[0].as_ref().map(|g| oracle.ascent(g));
                match ascended {
                    Some(Ok(perturbed)) if bad != Some(0) => {
                        let near = near("w + e_w", &model.read(), &perturbed, perturbed_rounding);
                        seen.error = seen.error.take().or(near.err());
                        want = Some(perturbed);
                    }
                    Some(Ok(perturbed)) => want = Some(perturbed),
                    other => seen.error = Some(format!("{other:?}")),
                }
            }
            model.loss(&coefficients) * factor
        };
        let result = match self.case[CALLS] {
            1 => {
                let scale = optim.loss_scale();
                let first = pass(&model, seen, 0, 0) * scale;
                let first = GradientsParams::from_grads(first.backward(), &model);
                if lean {
                    optim.lean_ascend(LR, model, first).and_then(|ascended| {
                        let second = pass(ascended.model(), seen, 0, 1) * ascended.loss_scale();
                        let second =
                            GradientsParams::from_grads(second.backward(), ascended.model());
                        optim.lean_descend(ascended, second)
                    })
                } else {
                    optim.ascend(model, first).and_then(|ascended| {
                        let second = pass(ascended.model(), seen, 0, 1) * ascended.loss_scale();
                        let second =
                            GradientsParams::from_grads(second.backward(), ascended.model());
                        optim.descend(LR, ascended, second)
                    })
                }
            }
            0 => {
                let mut count = 0..;
                let stepped =
                    optim.step(LR, model, |model| pass(model, seen, 0, count.next().unwrap_or(1)));
                stepped.map(|(model, _)| model)
            }
            calls => {
                let perturbation =
                    if calls == 2 { Perturbation::Whole } else { Perturbation::EachMicroBatch };
                let mut count = 0..;
                let loss = |model: &Net, part: &usize| {
                    let nth: usize = count.next().unwrap_or(0);
                    // Passes over a micro-batch follow each other, or all first passes come before all second ones.
                    let which = if calls == 2 { nth / 2 } else { nth % 2 };
                    pass(model, seen, *part, which)
                };
                let stepped = optim.step_accumulated(LR, model, perturbation, &[0, 1], loss);
                stepped.map(|(model, _)| model)
            }
        };
        let result = match result {
            Ok(model) => {
                self.model = model;
                Ok(())
            }
            Err(rejected) => {
                self.model = *rejected.model;
                Err(rejected.error)
            }
        };
        Ok((result, want))
    }
}

pub(super) fn case(target: &Target, case: &Case) -> Result<(), String> {
    let mut case = *case;
    let has_f16 = target.device.clone().inner().supports_dtype(DType::F16);
    if !has_f16 {
        case[PRECISION] = 0;
    }
    let mut run = Run::new(&case, target)?;
    for step in 0..SAVED {
        run.step(step)?;
    }
    let mut resumed = Run::new(&case, target)?;
    resumed.model = run.model.clone();
    let bytes = run.optim.to_bytes(&run.model).map_err(text)?;
    let loaded = resumed.optim.load_bytes(&resumed.model, bytes);
    // Burn 0.22.1 loads half-precision states of its optimizers as f32, and panics in the next step.
    let cannot_resume = case[BASE] == BURN && case[PRECISION] == 1;
    match loaded {
        Err(error) if cannot_resume && error.to_string().contains("F16") => {}
        loaded if cannot_resume => return Err(format!("a half-precision state: {loaded:?}")),
        loaded => loaded.map_err(text)?,
    }
    for step in SAVED..STEPS {
        run.step(step)?;
        if cannot_resume {
            continue;
        }
        let (result, _) = resumed.take(step, &mut PassRecord::default())?;
        result.map_err(text)?;
        if resumed.model.read() != run.model.read() {
            return Err(format!("step {step} differs after a resume"));
        }
    }
    let counts = |run: &Run| -> Result<_, String> {
        Ok((run.optim.skipped_steps().map_err(text)?, run.optim.loss_scale().to_bits()))
    };
    if !cannot_resume && counts(&run)? != counts(&resumed)? {
        return Err(format!("{:?}, resumed {:?}", counts(&run)?, counts(&resumed)?));
    }
    let skips = run.bad_pass(BAD).is_some_and(|pass| pass == 0 || case[NON_FINITE] != 1);
    if counts(&run)?.0 != u64::from(skips) {
        return Err(format!("{} skipped steps", counts(&run)?.0));
    }
    if target.policy == RoutePolicy::Fused {
        case[ROUNDING] = 0;
        // Masks come from the device's random numbers, so they differ between backends.
        if case[MASKS] == 0 {
            let mut other = Run::new(&case, &flex())?;
            for step in 0..STEPS {
                other.step(step).map_err(|error| format!("the other route: {error}"))?;
            }
            // In each step a result next to a tie may be rounded to either side.
            let Rounding { half_ulps, min_magnitude } = run.rounding();
            let rounding = Rounding { half_ulps: 2.0 * STEPS as f64 * half_ulps, min_magnitude };
            near("the other route", &run.model.read(), &other.model.read(), rounding)?;
        }
    }
    Ok(())
}

/// An error bound: `half_ulps` half ulps of f16, of the value or of `min_magnitude`, whichever is larger.
#[derive(Clone, Copy)]
struct Rounding {
    half_ulps: f64,
    min_magnitude: f64,
}

impl Rounding {
    const NONE: Self = Self { half_ulps: 0.0, min_magnitude: 0.0 };
}

/// Checks equality within the f32 rounding of some steps. The half-precision tensor may also differ by `rounding`.
fn near(what: &str, got: &Tensors, want: &[Vec<f64>], rounding: Rounding) -> Result<(), String> {
    for (tensor, (got, want)) in got.iter().zip(want).enumerate() {
        let Rounding { half_ulps, min_magnitude } =
            if tensor == 1 { rounding } else { Rounding::NONE };
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let rounded = half_ulps * want.abs().max(min_magnitude) / 2048.0;
            let right = (got - want).abs() <= 3e-6 + 3e-5 * want.abs() + rounded;
            if !right {
                return Err(format!("{what}: tensor {tensor}[{i}] is {got}, expected {want}"));
            }
        }
    }
    Ok(())
}
