//! WSAM's relatives: counted costs, gradients for external base optimizers, and invalid calls.

use super::*;
use crate::groups::engine_of_few_frames;
use crate::relatives::{CLOSE, LENS, METHODS, groups_for, oracle};
use burn_wsam::engine::{
    AscentOptions, AscentTensor, BaseTensor, BlendSource, ClipTensor, DescentTensor, EngineError,
    LeanAscentTensor, MethodState, MixTensor, MomentumTensor, Rounding, SharpenTensor, Slice,
    StepStats,
};
use burn_wsam::method::{Blend, Group, Method};
use burn_wsam_support::bench::sets::sets;
use burn_wsam_support::engine_route::{engine, read, slice};
use burn_wsam_support::golden::{narrow, widen};
use burn_wsam_support::gpu::Gpu;

fn momentum() -> Hyperparameters {
    let momentum = Momentum { momentum: 0.9, dampening: 0.0, nesterov: false };
    Hyperparameters::new(Base::Sgd { momentum: Some(momentum), weight_decay: 1e-4 })
}

/// Tensors of one buffer for each role, in the order weight, perturbed weight, `g`, `g~`, method state, states.
struct Model {
    buffers: Vec<wgpu::Buffer>,
    places: Vec<(u64, u64)>,
}

impl Model {
    fn new(engine: &Engine, lens: &[u64]) -> Self {
        let mut end = 0;
        let mut place = |len: &u64| {
            let start = end;
            end += (4 * len).next_multiple_of(256);
            (start, *len)
        };
        let places = lens.iter().map(&mut place).collect();
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size: end,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        };
        let buffers = (0..8).map(|_| engine.device().create_buffer(&descriptor)).collect();
        Self { buffers, places }
    }

    fn at(&self, role: usize, tensor: usize) -> Slice {
        let (start, len) = self.places[tensor];
        Slice::new(&self.buffers[role], len).at(start)
    }

    fn state(&self, hyper: &Hyperparameters, tensor: usize) -> Vec<Slice> {
        (0..hyper.base.state_names().len()).map(|state| self.at(5 + state, tensor)).collect()
    }

    /// Records a step, of one pass if asked for, and returns its costs. It is not submitted.
    fn record(
        &self,
        engine: &Engine,
        hyper: &Hyperparameters,
        one_pass: bool,
    ) -> Result<StepStats, EngineError> {
        let all = || 0..self.places.len();
        let keeps = !hyper.method.state_names().is_empty();
        let method_state = |i: usize| match keeps {
            true => MethodState::Set(self.at(4, i)),
            false => MethodState::None,
        };
        let placed = |i: usize| Placement::OutOfPlace(self.at(1, i));
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        let base = |i: usize| {
            BaseTensor::new(self.at(0, i), self.at(2, i)).with_state(self.state(hyper, i), 2)
        };
        let options = GradientOptions::default();
        if hyper.method == Method::MomentumSam {
            let tensors: Vec<_> = all()
                .map(|i| MomentumTensor::new(self.at(0, i), self.at(5, i), placed(i), 2))
                .collect();
            let rounding = Rounding::Nearest;
            let ascent = engine.momentum_ascent(&mut encoder, hyper, rounding, &tensors)?;
            let tensors: Vec<_> = all().map(base).collect();
            let step =
                engine.momentum_step(&mut encoder, hyper, 0.1, options, &ascent, &tensors)?;
            let mut stats = ascent.stats();
            stats += step.stats();
            return Ok(stats);
        }
        if one_pass {
            let tensors: Vec<_> =
                all().map(|i| base(i).with_method_state(method_state(i))).collect();
            return engine
                .one_pass_step(&mut encoder, hyper, 0.1, options, &tensors)
                .map(|step| step.stats());
        }
        let is_friendly = matches!(hyper.method, Method::FriendlySam { .. });
        let of_ascent = |i| if is_friendly { method_state(i) } else { MethodState::None };
        let tensors: Vec<_> = all()
            .map(|i| {
                AscentTensor::new(self.at(0, i), self.at(2, i), placed(i))
                    .with_method_state(of_ascent(i))
            })
            .collect();
        let ascent = engine.ascent(&mut encoder, hyper, AscentOptions::default(), &tensors)?;
        let tensors: Vec<_> = all()
            .map(|i| {
                DescentTensor::new(self.at(0, i), self.at(2, i), self.at(3, i))
                    .with_state(self.state(hyper, i), 2)
                    .with_method_state(method_state(i))
            })
            .collect();
        let mut stats = ascent.stats();
        let blend = BlendSource::Method;
        stats += engine.descent(&mut encoder, hyper, 0.1, blend, &ascent, &tensors)?;
        Ok(stats)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.buffers.iter().for_each(wgpu::Buffer::destroy);
    }
}

/// Dispatches, and bytes a parameter, of each method around SGD with momentum and AdamW. Both do not depend on the
/// parameters. WSAM's steps move 44 and 52 bytes.
pub(crate) fn counts(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    // A norm in separate dispatches, as on every backend but Vulkan.
    let tuning = changed(engine.tuning(), |it| it.finish_in_norm = false);
    let engine = Engine::with_tuning(engine.device(), engine.queue(), tuning);
    let engine = engine.map_err(|error| error.to_string())?;
    let gsam = Method::Gsam { alpha: 0.4 };
    let friendly = Method::FriendlySam { sigma: 1.0, lambda: 0.6 };
    let look = Method::LookSam { alpha: 0.7, k: 5 };
    let propagating = NonFinite::Propagate;
    let falls_back = NonFinite::BaseStep;
    let skips = NonFinite::Skip;
    let cases = [
        (gsam, false, skips, 6, 48),
        (gsam, false, propagating, 6, 48),
        (friendly, false, skips, 6, 60),
        (friendly, false, propagating, 5, 56),
        // Also reads g.
        (friendly, false, falls_back, 6, 64),
        (look, false, skips, 9, 64),
        (look, false, falls_back, 9, 68),
        (look, true, skips, 3, 28),
        (Method::MomentumSam, true, skips, 5, 40),
        (Method::MomentumSam, true, propagating, 4, 36),
    ];
    let all = sets();
    let small = [vec![4096], vec![4096; 3], vec![4096; 200]];
    for lens in all.iter().map(|set| &set.lens).chain(&small) {
        let model = Model::new(&engine, lens);
        let parameters: u64 = lens.iter().sum();
        for (base, more) in [(momentum(), 0), (adamw(), 8)] {
            for (method, one_pass, non_finite, dispatches, bytes) in cases {
                let hyper = Hyperparameters { method, non_finite, ..base.clone() };
                let stats = model.record(&engine, &hyper, one_pass);
                let stats = stats.map_err(|error| error.to_string())?;
                let name = format!("{method:?}, {non_finite:?}, {} tensors", lens.len());
                // Buffers above the largest binding have several windows, and so several dispatches.
                let fits =
                    4 * parameters < engine.device().limits().max_storage_buffer_binding_size;
                if fits && stats.dispatches != dispatches {
                    return Err(format!(
                        "{name}: {} dispatches, not {dispatches}",
                        stats.dispatches
                    ));
                }
                if stats.bytes() != (bytes + more) * parameters {
                    let each = stats.bytes() as f64 / parameters as f64;
                    return Err(format!("{name}: {each} bytes a parameter, not {}", bytes + more));
                }
            }
        }
    }
    Ok(())
}

/// The gradients for an external base optimizer, which are those that plain SGD with rate 1 steps on.
pub(crate) fn mixes(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let zero = model(1, &LENS).iter().map(|tensor| vec![0.0; tensor.len()]).collect::<Vec<_>>();
    let of = [1, 2, 0, 3, 4];
    for method in METHODS.into_iter().filter(|method| *method != Method::MomentumSam) {
        let groups = groups_for(method);
        // Rates and decays are those of the external optimizer.
        let plain = |group: Group| Group { lr_factor: 1.0, weight_decay: None, ..group };
        let groups = groups.into_iter().map(plain).collect();
        let hyper = Hyperparameters { method, groups, ..sgd() };
        let mut oracle = oracle(&hyper, &zero, &of)?;
        let moves = |i: usize| hyper.in_group(of[i]).is_some_and(|group| group.perturbed);
        let put = |seed| -> Vec<Slice> {
            model(seed, &LENS).iter().map(|tensor| slice(&engine, &narrow(tensor))).collect()
        };
        let [w, g, p, partner, state, mixed] = [1, 100, 200, 3, 4, 5].map(put);
        let keeps = |i: usize| moves(i) && !method.state_names().is_empty();
        let unset = |i: usize| match keeps(i) {
            true => MethodState::Unset(state[i].clone()),
            false => MethodState::None,
        };
        let set = |i: usize| match keeps(i) {
            true => MethodState::Set(state[i].clone()),
            false => MethodState::None,
        };
        let is_friendly = matches!(method, Method::FriendlySam { .. });
        let ascents: Vec<_> = (0..5)
            .map(|i| {
                let placement = Placed::OutOfPlace.with(moves(i).then(|| partner[i].clone()));
                AscentTensor::new(w[i].clone(), g[i].clone(), placement)
                    .with_method_state(if is_friendly { unset(i) } else { MethodState::None })
                    .in_group(of[i])
            })
            .collect();
        let mixes: Vec<_> = (0..5)
            .map(|i| {
                MixTensor::new(mixed[i].clone(), g[i].clone(), p[i].clone())
                    .with_method_state(unset(i))
                    .in_group(of[i])
            })
            .collect();
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        let ascent = engine.ascent(&mut encoder, &hyper, AscentOptions::default(), &ascents);
        let ascent = ascent.map_err(|error| error.to_string())?;
        engine.mix(&mut encoder, &hyper, &ascent, &mixes).map_err(|error| error.to_string())?;
        engine.queue().submit([encoder.finish()]);
        let check = |seed: u64, want: &[Vec<f64>]| {
            let got: Result<Vec<_>, _> =
                mixed.iter().map(|slice| read(&engine, slice).map(|v| widen(&v))).collect();
            let got = got.map_err(|error| error.to_string())?;
            compare(seed as usize, "mixed", &got, want, CLOSE, &mut Worst::default())
                .map_err(|error| format!("{method:?}: {error}"))
        };
        // From zero weights at rate -1 the new weights are the gradient.
        oracle.ascent(&model(100, &LENS)).map_err(|error| error.to_string())?;
        oracle.descent(-1.0, &model(200, &LENS)).map_err(|error| error.to_string())?;
        check(0, oracle.weights())?;
        if let (Method::LookSam { .. }, burn_wsam::method::Passes::One) = (method, oracle.passes())
        {
            oracle.set_weights(zero.clone()).map_err(|error| error.to_string())?;
            oracle.one_pass_step(-1.0, &model(100, &LENS)).map_err(|error| error.to_string())?;
            let tensors: Vec<_> = (0..5)
                .map(|i| {
                    ClipTensor::new(mixed[i].clone(), g[i].clone())
                        .with_method_state(set(i))
                        .in_group(of[i])
                })
                .collect();
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            engine
                .one_pass_mix(&mut encoder, &hyper, GradientOptions::default(), &tensors)
                .map_err(|error| error.to_string())?;
            engine.queue().submit([encoder.finish()]);
            check(1, oracle.weights())?;
        }
    }
    Ok(())
}

/// The refusal's message must start and end so.
fn expect<T: std::fmt::Debug>(
    what: &str,
    got: Result<T, EngineError>,
    parts: [&str; 2],
) -> Result<(), String> {
    match got {
        Err(error) if parts.iter().all(|part| error.to_string().contains(part)) => Ok(()),
        other => Err(format!("{what}: {other:?}, expected {parts:?}")),
    }
}

pub(crate) fn refused(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let with = |method| Hyperparameters { method, ..momentum() };
    let gsam = with(Method::Gsam { alpha: 0.4 });
    let friendly = with(Method::FriendlySam { sigma: 1.0, lambda: 0.6 });
    let look = with(Method::LookSam { alpha: 0.7, k: 5 });
    let momentum_sam = with(Method::MomentumSam);
    let new = |len: usize| slice(&engine, &vec![1.0; len]);
    let out = || Placement::OutOfPlace(new(8));
    let up = || AscentTensor::new(new(8), new(8), out());
    let base = || BaseTensor::new(new(8), new(8)).with_state(vec![new(8)], 1);
    let down = || DescentTensor::new(new(8), new(8), new(8)).with_state(vec![new(8)], 1);
    let encoder = || engine.device().create_command_encoder(&Default::default());
    let options = GradientOptions::default;
    let ascend = |hyper: &Hyperparameters, tensor: AscentTensor| {
        engine.ascent(&mut encoder(), hyper, AscentOptions::default(), &[tensor])
    };
    let ascent = ascend(&gsam, up()).map_err(|error| error.to_string())?;
    let descend = |hyper: &Hyperparameters, tensor: DescentTensor, blend: BlendSource<'_>| {
        engine.descent(&mut encoder(), hyper, 0.1, blend, &ascent, &[tensor])
    };
    let own = BlendSource::Method;

    expect(
        "Momentum-SAM's ascent",
        ascend(&momentum_sam, up()),
        ["Momentum-SAM", "momentum_ascent"],
    )?;
    let got = descend(&momentum_sam, down(), own);
    expect("Momentum-SAM's descent", got, ["Momentum-SAM", "momentum_step"])?;
    let blend = BlendSource::Host(Blend { a: 0.0, b: 1.0, sharpness: 0.0 });
    expect("a blend", descend(&gsam, down(), blend), ["GSAM", "BlendSource::Method"])?;
    for hyper in [&gsam, &friendly, &momentum_sam] {
        let got = engine.one_pass_step(&mut encoder(), hyper, 0.1, options(), &[base()]);
        expect("a step of one pass", got, ["one_pass_step does not support", hyper.method.name()])?;
    }
    for hyper in [&gsam, &friendly, &look, &momentum_sam] {
        let tensor = LeanAscentTensor::new(new(8), new(8), new(8)).with_state(vec![new(8)], 1);
        let got = engine.lean_ascent(&mut encoder(), hyper, 0.1, options(), &[tensor]);
        expect("lean mode", got, ["lean_ascent does not support", hyper.method.name()])?;
        let got = engine.prepare(hyper, AscentOptions::default(), &[up()], &[down()]);
        expect("a prepared step", got, ["prepare does not support", hyper.method.name()])?;
        let tensor = SharpenTensor::new(new(8), new(8), new(8));
        let got = engine.sharpen(&mut encoder(), hyper, 0.1, &ascent, None, &[tensor]);
        expect("a sharpness step", got, ["sharpen does not support", hyper.method.name()])?;
        if hyper.method != Method::MomentumSam {
            let tensor = MomentumTensor::new(new(8), new(8), out(), 1);
            let rounding = Rounding::Nearest;
            let got = engine.momentum_ascent(&mut encoder(), hyper, rounding, &[tensor]);
            expect("a momentum ascent", got, ["momentum_ascent", hyper.method.name()])?;
        }
    }

    // Method states that are missing, or that nothing uses.
    let given = || MethodState::Set(new(8));
    expect("no average", ascend(&friendly, up()), ["tensor 0", "missing"])?;
    expect("no direction", descend(&look, down(), own), ["tensor 0", "missing"])?;
    let got = ascend(&gsam, up().with_method_state(given()));
    expect("a state of GSAM", got, ["tensor 0", "given"])?;
    let got = ascend(&look, up().with_method_state(given()));
    expect("a direction in an ascent", got, ["tensor 0", "given"])?;
    let got = engine.base_step(
        &mut encoder(),
        &look,
        0.1,
        options(),
        &[base().with_method_state(given())],
    );
    expect("a direction in a base step", got, ["tensor 0", "given"])?;
    let still = Group { perturbed: false, ..Group::default() };
    let still = Hyperparameters { groups: vec![still], ..friendly.clone() };
    let tensor = changed(up(), |it| it.perturbed = Placement::Unperturbed).in_group(1);
    let got = ascend(&still, tensor.with_method_state(given()));
    expect("an average of a still tensor", got, ["tensor 0", "given"])?;
    let got = ascend(&friendly, up().with_method_state(MethodState::Set(new(7))));
    expect("a short average", got, ["method_state has 7 elements", "8"])?;
    let shared = new(8);
    let overlapping = changed(up(), |it| it.perturbed = Placement::OutOfPlace(shared.clone()));
    let got = ascend(&friendly, overlapping.with_method_state(MethodState::Set(shared.clone())));
    expect("an average in the perturbed weights", got, ["method_state", "perturbed"])?;

    // Pairs of options.
    let plain = Hyperparameters { method: Method::MomentumSam, ..sgd() };
    let tensor = MomentumTensor::new(new(8), new(8), out(), 1);
    let got = engine.momentum_ascent(&mut encoder(), &plain, Rounding::Nearest, &[tensor]);
    expect("SGD without momentum", got, ["Momentum-SAM", "SGD without momentum"])?;
    let of_gamma = vec![Group { gamma: Some(0.5), ..Group::default() }];
    let got = ascend(&Hyperparameters { groups: of_gamma, ..gsam.clone() }, up());
    expect("gamma of a group", got, ["GSAM", "gamma of a group"])?;
    let tensor = MomentumTensor::new(new(8), new(8), out(), 0);
    let got = engine.momentum_ascent(&mut encoder(), &momentum_sam, Rounding::Nearest, &[tensor]);
    expect("step 0", got, ["tensor 0", "step"])?;
    let got = engine.momentum_step(&mut encoder(), &momentum_sam, 0.1, options(), &ascent, &[]);
    expect("another number of tensors", got, ["0", "1"])
}
