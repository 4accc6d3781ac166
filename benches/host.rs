//! Host time: recording in the engine, and the calls of a step in Burn, with the device idle and the
//! gradients ready.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use burn_wsam::RoutePolicy::{Fused, TensorOps};
use burn_wsam::method::{Hyperparameters, NonFinite};
use burn_wsam_support::bench::burn_models::{Deep, Flat, bases, wsam};
use burn_wsam_support::bench::engine_steps::{Model, Steps};
use burn_wsam_support::bench::report::Report;
use burn_wsam_support::bench::{engine_steps, sets};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Allocations of all threads since the start.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Counts allocations.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// Times the recording of both phases, with cached and with new plans.
fn recording(criterion: &mut Criterion, report: &Report) {
    let (engine, _) = engine_steps::engine();
    let (_, base) = engine_steps::bases()[1];
    let non_finite = NonFinite::Propagate;
    let hyper = Hyperparameters { non_finite, ..Hyperparameters::new(base) };
    for set in sets::sets() {
        let mut group = criterion.benchmark_group(format!("recording, {}", set.name));
        group.sample_size(20).measurement_time(Duration::from_secs(1));
        let model = Model::new(&engine, &set.lens, 4 + base.state_names().len());
        let steps = Steps::new(&model, false);
        let record = || {
            let start = Instant::now();
            steps.record(&engine, &hyper, drop).expect("a valid step");
            start.elapsed()
        };
        report.time(&mut group, (set.name, "recording"), (None, "host"), Value::Null, None, record);
        let with_new_plan = || {
            engine.forget_plans();
            record()
        };
        report.time(
            &mut group,
            (set.name, "recording with a new plan"),
            (None, "host"),
            Value::Null,
            None,
            with_new_plan,
        );
        group.finish();
    }
}

/// A model and its gradients.
trait Trained: Module {
    fn grads(&self) -> GradientsParams;
}

/// 160 tensors, with a backward pass.
#[derive(Module, Debug)]
struct Network {
    deep: Deep,
}

impl Trained for Network {
    fn grads(&self) -> GradientsParams {
        let device = self.devices().pop().expect("the model is on a device");
        let x = Tensor::<2>::ones([5, 24], &device);
        GradientsParams::from_grads(self.deep.loss(&x).backward(), self)
    }
}

/// 1,000 tensors of 1,000 elements, with the same gradients in each step.
#[derive(Module, Debug)]
struct Many {
    flat: Flat,
}

impl Trained for Many {
    fn grads(&self) -> GradientsParams {
        let device = self.devices().pop().expect("the model is on a device");
        let grads = self.flat.random_grads(&device.inner());
        self.flat.grads(&grads)
    }
}

/// Times a step's calls. The gradients are computed before the clock starts, and the wait for submitted work comes
/// after it stops. Allocations, calls to Burn's servers and new tensors are counted in the last step.
fn calls<M: Trained>(
    criterion: &mut Criterion,
    report: &Report,
    (set, tensors): (&str, u64),
    new: impl Fn(&Device) -> M,
) {
    let device = engine_steps::shared().autodiff();
    let mut group = criterion.benchmark_group(set);
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    let grads = |model: &M| {
        let grads = model.grads();
        device.sync().expect("the device works");
        grads
    };
    for (base, config, burns) in bases() {
        // A clone of the model forces a step out of place.
        for (name, route, clones) in [
            ("fused", Fused, false),
            ("fused, out of place", Fused, true),
            ("tensor operations", TensorOps, false),
        ] {
            // Tensor operations over 1,000 tensors take seconds.
            if route == TensorOps && tensors > 500 {
                continue;
            }
            let mut optim = wsam(&config, route, false, &device);
            let mut model = Some(new(&device));
            let mut allocated = 0;
            let mut run = || {
                let before = model.take().expect("the model is put back after each step");
                let clone = clones.then(|| before.clone());
                let first = grads(&before);
                let (allocations, start) = (ALLOCATIONS.load(Relaxed), Instant::now());
                let ascended = optim.ascend(before, first).expect("a valid step");
                let (ascent_time, ascent) =
                    (start.elapsed(), ALLOCATIONS.load(Relaxed) - allocations);
                let second = grads(ascended.model());
                let (allocations, start) = (ALLOCATIONS.load(Relaxed), Instant::now());
                let after = optim.descend(1e-3, ascended, second).expect("a valid step");
                let descent_time = start.elapsed();
                allocated = ascent + ALLOCATIONS.load(Relaxed) - allocations;
                drop(clone);
                model = Some(after);
                ascent_time + descent_time
            };
            for _ in 0..5 {
                run();
            }
            let row = format!("{base}, {name}");
            report.time(&mut group, (set, &row), (None, "host"), Value::Null, None, run);
            report.add_counts((set, &row), |_| {
                let stats = optim.last_step_stats().unwrap_or_default();
                json!({
                    "allocations_per_tensor": allocated as f64 / tensors as f64,
                    "server_calls": stats.server_calls,
                    "tensors_made": stats.tensors_made,
                })
            });
        }
        let mut optim = burns();
        let mut model = Some(new(&device));
        let run = || {
            let before = model.take().expect("the model is put back after each step");
            let grads = grads(&before);
            let start = Instant::now();
            model = Some(optim.step(1e-3, before, grads));
            start.elapsed()
        };
        let name = format!("{base}, Burn's own alone");
        report.time(&mut group, (set, &name), (None, "host"), Value::Null, None, run);
    }
    group.finish();
}

fn host(criterion: &mut Criterion) {
    let (_, adapter) = engine_steps::engine();
    let report = Report::new("host", engine_steps::machine(&adapter));
    recording(criterion, &report);
    calls(criterion, &report, ("160 tensors in Burn", 160), |device| Network {
        deep: Deep::new(24, device),
    });
    calls(criterion, &report, ("1000 tensors in Burn", 1000), |device| Many {
        flat: Flat::new(&[1000; 1000], device),
    });
    report.finish().expect("the report can be written");
}

criterion_group!(benches, host);
criterion_main!(benches);
