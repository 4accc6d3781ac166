//! Replays every golden trajectory on every route. See tests/README.md.

use burn_wsam::method::Coupling;
use burn_wsam_support::family::{self, FamilyGolden};
use burn_wsam_support::family_replay::{FamilyRoute, oracle, replay_family};
use burn_wsam_support::golden::{self, Golden};
use burn_wsam_support::replay::{OracleRoute, Route, Tolerance, replay, replay_rounded};
use libtest_mimic::{Failed, Trial};

type MakeRoute = Box<dyn Fn(&Golden) -> Result<Box<dyn Route>, String> + Send>;

fn main() {
    let (goldens, toys) = match golden::load() {
        Ok(loaded) => loaded,
        Err(error) => {
            // An unreadable folder is a failing test, not an empty suite.
            let trial = Trial::test("golden files", move || Err(Failed::from(error)));
            libtest_mimic::run(&libtest_mimic::Arguments::from_args(), vec![trial]).exit()
        }
    };
    println!("golden files from {}", golden::folder().display());
    let mut trials = Vec::new();
    trials.extend(goldens.iter().map(|golden| {
        let make: MakeRoute = Box::new(|golden| {
            Ok(Box::new(OracleRoute::new(golden.hyper.clone(), golden.weight.clone())))
        });
        trial(golden, "oracle", Some(Tolerance::DOUBLE), make)
    }));
    #[cfg(feature = "fused-wsam")]
    trials.extend(on_adapters(&goldens, &toys));
    #[cfg(feature = "burn")]
    for lean in [false, true] {
        trials.extend(goldens.iter().filter(|golden| supports(golden, lean)).map(|golden| {
            let make: MakeRoute = Box::new(move |golden| {
                let device = burn::tensor::Device::flex();
                burn_route(golden, &device, burn_wsam::RoutePolicy::TensorOps, lean)
            });
            let route = format!("burn, tensor operations{}, flex", mode(lean));
            trial(golden, &route, None, make)
        }));
    }
    let _ = &toys;
    let relatives = family::load();
    let of_relatives = relatives.as_ref().map_or(0, Vec::len);
    trials.extend(relatives_on_all(relatives));
    trials.push(Trial::test("at least one trajectory", move || {
        // A user's folder may have trajectories of one form only.
        let found = goldens.len() + if golden::is_own_folder() { of_relatives } else { 0 };
        if found == 0 { Err("no trajectory in the folder".into()) } else { Ok(()) }
    }));
    burn_wsam_support::gpu::run(trials);
}

/// A trial of one file on one route, with a tolerance or with the bound derived from `f32` rounding. Prints the worst
/// error.
fn trial(golden: &Golden, route: &str, tolerance: Option<Tolerance>, make: MakeRoute) -> Trial {
    let (golden, name) = (golden.clone(), format!("{} on {route}", golden.file));
    let title = name.clone();
    Trial::test(name, move || {
        let mut route = make(&golden)?;
        let worst = match tolerance {
            Some(tolerance) => replay(&golden, route.as_mut(), tolerance)?,
            None => replay_rounded(&golden, route.as_mut())?,
        };
        let place = worst.place.map_or_else(|| "bit-equal".to_owned(), |place| place.to_string());
        println!(
            "\n    {title}: worst error {:.0} % of what is allowed, relative {:.1e} ({place})",
            100.0 * worst.score,
            worst.relative,
        );
        Ok(())
    })
}

/// Whether the mode supports the trajectory: lean mode requires the decoupled form.
fn supports(golden: &Golden, lean: bool) -> bool {
    !lean || golden.hyper.coupling == Coupling::Decoupled
}

#[cfg(feature = "burn")]
fn mode(lean: bool) -> &'static str {
    if lean { ", lean" } else { "" }
}

#[cfg(feature = "burn")]
fn burn_route(
    golden: &Golden,
    device: &burn::tensor::Device,
    policy: burn_wsam::RoutePolicy,
    lean: bool,
) -> Result<Box<dyn Route>, String> {
    use burn_wsam_support::burn_route::BurnRoute;
    let make = if lean { BurnRoute::lean } else { BurnRoute::new };
    Ok(Box::new(make(golden, device, policy)?))
}

/// Trials for each adapter: the engine with the adapter's limits and with WebGPU's, Burn in both routes and
/// modes, and the toy example.
#[cfg(feature = "fused-wsam")]
fn on_adapters(goldens: &[Golden], toys: &[golden::Toy]) -> Vec<Trial> {
    use burn_wsam_support::{engine_route, gpu};

    let adapters = gpu::adapters();
    if adapters.is_empty() {
        return gpu::trials(&[("golden files on the GPU", |_| unreachable!())]);
    }
    let mut trials = Vec::new();
    for gpu in &adapters {
        let opened = [
            ("", engine_route::engine(gpu)),
            (", WebGPU's limits", engine_route::webgpu_engine(gpu)),
        ];
        for (limits, engine) in opened {
            match engine {
                Ok(engine) => {
                    trials.extend(engine_trials(goldens, gpu, &engine, limits));
                    if limits.is_empty() {
                        trials.extend(toys.iter().flat_map(|toy| toy_trials(toy, gpu, &engine)));
                    }
                }
                Err(error) => {
                    let name = format!("engine{limits} [{}]", gpu.name);
                    trials.push(Trial::test(name, || Err(error.into())));
                }
            }
        }
        #[cfg(feature = "burn")]
        trials.extend(burn_on(gpu, goldens));
    }
    trials
}

/// Trials of one engine, in both placements and in lean mode.
#[cfg(feature = "fused-wsam")]
fn engine_trials(
    goldens: &[Golden],
    gpu: &burn_wsam_support::gpu::Gpu,
    engine: &std::sync::Arc<burn_wsam::engine::Engine>,
    limits: &str,
) -> Vec<Trial> {
    use burn_wsam_support::engine_route::Placed;
    use burn_wsam_support::{engine_route, lean_route};
    let mut trials = Vec::new();
    for (placement, label) in [(Placed::OutOfPlace, "out of place"), (Placed::InPlace, "in place")]
    {
        for golden in goldens {
            let engine = engine.clone();
            let make: MakeRoute = Box::new(move |golden| {
                let (hyper, weight) = (golden.hyper.clone(), &golden.weight);
                Ok(Box::new(engine_route::EngineRoute::new(&engine, hyper, placement, weight)))
            });
            let route = format!("engine, {label}{limits} [{}]", gpu.name);
            trials.push(trial(golden, &route, None, make));
        }
    }
    for golden in goldens.iter().filter(|golden| supports(golden, true)) {
        let engine = engine.clone();
        let make: MakeRoute = Box::new(move |golden| {
            let Golden { hyper, lr, weight, .. } = golden;
            Ok(Box::new(lean_route::LeanRoute::new(&engine, hyper.clone(), *lr, weight)))
        });
        let route = format!("engine, lean{limits} [{}]", gpu.name);
        trials.push(trial(golden, &route, None, make));
    }
    trials
}

#[cfg(all(feature = "fused-wsam", feature = "burn"))]
fn burn_on(gpu: &burn_wsam_support::gpu::Gpu, goldens: &[Golden]) -> Vec<Trial> {
    use burn_wsam::RoutePolicy;
    let device = match burn_wsam_support::burn_route::device(gpu) {
        Ok(device) => device,
        Err(error) => {
            return vec![Trial::test(format!("burn [{}]", gpu.name), || Err(error.into()))];
        }
    };
    let routes = [(RoutePolicy::Fused, "fused"), (RoutePolicy::TensorOps, "tensor operations")];
    let mut trials = Vec::new();
    for ((policy, label), lean) in routes.into_iter().flat_map(|r| [(r, false), (r, true)]) {
        for golden in goldens.iter().filter(|golden| supports(golden, lean)) {
            let device = device.clone();
            let make: MakeRoute = Box::new(move |golden| burn_route(golden, &device, policy, lean));
            let route = format!("burn, {label}{} [{}]", mode(lean), gpu.name);
            trials.push(trial(golden, &route, None, make));
        }
    }
    trials
}

/// Checks that the engine ends each run of the paper's example in the same basin as the authors' code. The paths
/// themselves are chaotic near a minimum, in f32 sooner than in f64.
#[cfg(feature = "fused-wsam")]
fn toy_trials(
    toy: &golden::Toy,
    gpu: &burn_wsam_support::gpu::Gpu,
    engine: &std::sync::Arc<burn_wsam::engine::Engine>,
) -> Vec<Trial> {
    use burn_wsam_support::engine_route::{EngineRoute, Placed};
    use burn_wsam_support::toy::{basin, toy_path};
    let trial = |run: &golden::ToyRun| {
        let (toy, run, engine) = (toy.clone(), run.clone(), engine.clone());
        let name = format!("{} gamma {} {:?} [{}]", toy.file, run.gamma, run.coupling, gpu.name);
        let title = name.clone();
        Trial::test(name, move || {
            let steps = run.path.len() - 1;
            let start = vec![toy.start.to_vec()];
            let mut route = EngineRoute::new(&engine, toy.hyper(&run), Placed::OutOfPlace, &start);
            let path = toy_path(&toy, steps, &mut route)?;
            let (end, want) = (path[steps], run.path[steps]);
            println!("\n    {title}: {end:?}, authors {want:?}: {}", basin(want));
            if basin(end) == basin(want) {
                Ok(())
            } else {
                Err(format!("ends in the {}, {end:?}, expected {want:?}", basin(end)).into())
            }
        })
    };
    toy.runs.iter().map(trial).collect()
}

/// Trials of the trajectories of other methods than WSAM.
fn relatives_on_all(relatives: Result<Vec<FamilyGolden>, String>) -> Vec<Trial> {
    let relatives = match relatives {
        Ok(relatives) => relatives,
        Err(error) => {
            return vec![Trial::test("golden files of other methods", || Err(error.into()))];
        }
    };
    let make = |golden: &FamilyGolden| Ok(Box::new(oracle(golden)) as Box<dyn FamilyRoute>);
    let on_oracle = |golden| family_trial(golden, "oracle", Tolerance::DOUBLE, Box::new(make));
    let mut trials: Vec<_> = relatives.iter().map(on_oracle).collect();
    #[cfg(feature = "fused-wsam")]
    trials.extend(relatives_on_adapters(&relatives));
    #[cfg(feature = "burn")]
    trials.extend(relatives_on_burn(&relatives));
    trials
}

type MakeFamilyRoute = Box<dyn Fn(&FamilyGolden) -> Result<Box<dyn FamilyRoute>, String> + Send>;

/// A trial of one file of another method on one route. Prints the worst error.
fn family_trial(
    golden: &FamilyGolden,
    route: &str,
    tolerance: Tolerance,
    make: MakeFamilyRoute,
) -> Trial {
    let (golden, name) = (golden.clone(), format!("{} on {route}", golden.file));
    let title = name.clone();
    Trial::test(name, move || {
        let worst = replay_family(&golden, make(&golden)?.as_mut(), tolerance)?;
        println!(
            "\n    {title}: worst error {:.0} % of what is allowed, relative {:.1e}",
            100.0 * worst.score,
            worst.relative,
        );
        Ok(())
    })
}

/// Trials on the engine of each adapter, in both placements, with the adapter's limits and with WebGPU's.
#[cfg(feature = "fused-wsam")]
fn relatives_on_adapters(relatives: &[FamilyGolden]) -> Vec<Trial> {
    use burn_wsam_support::engine_route::{Placed, engine, webgpu_engine};
    use burn_wsam_support::family_engine_route::FamilyEngineRoute;
    let mut trials = Vec::new();
    for gpu in &burn_wsam_support::gpu::adapters() {
        for (limits, engine) in [("", engine(gpu)), (", WebGPU's limits", webgpu_engine(gpu))] {
            let engine = match engine {
                Ok(engine) => engine,
                Err(error) => {
                    let name = format!("engine of other methods{limits} [{}]", gpu.name);
                    trials.push(Trial::test(name, || Err(error.into())));
                    continue;
                }
            };
            let placements = [(Placed::OutOfPlace, "out of place"), (Placed::InPlace, "in place")];
            for (placement, label) in placements {
                trials.extend(relatives.iter().map(|golden| {
                    let engine = engine.clone();
                    let make: MakeFamilyRoute = Box::new(move |golden| {
                        let (hyper, weight) = (golden.hyper.clone(), &golden.weight);
                        let route = FamilyEngineRoute::new(&engine, hyper, placement, weight);
                        Ok(Box::new(route))
                    });
                    let route = format!("engine, {label}{limits} [{}]", gpu.name);
                    family_trial(golden, &route, Tolerance::SINGLE, make)
                }));
            }
        }
    }
    trials
}

/// Trials on the Burn optimizer: tensor operations on the CPU, and both routes on each adapter.
#[cfg(feature = "burn")]
fn relatives_on_burn(relatives: &[FamilyGolden]) -> Vec<Trial> {
    use burn_wsam::RoutePolicy::TensorOps;
    use burn_wsam_support::burn_family_route::BurnFamilyRoute;
    let flex: Result<_, String> = Ok(burn::tensor::Device::flex());
    let targets = vec![("tensor operations, flex".to_owned(), flex, TensorOps)];
    #[cfg(feature = "fused-wsam")]
    let mut targets = targets;
    #[cfg(feature = "fused-wsam")]
    for gpu in burn_wsam_support::gpu::adapters() {
        let device = burn_wsam_support::burn_route::device(&gpu);
        for (policy, label) in burn_wsam_support::target::ROUTES {
            targets.push((format!("{label} [{}]", gpu.name), device.clone(), policy));
        }
    }
    let mut trials = Vec::new();
    for (label, device, policy) in targets {
        trials.extend(relatives.iter().map(|golden| {
            let device = device.clone();
            let make: MakeFamilyRoute = Box::new(move |golden| {
                Ok(Box::new(BurnFamilyRoute::new(golden, &device.clone()?, policy)?))
            });
            family_trial(golden, &format!("burn, {label}"), Tolerance::SINGLE, make)
        }));
    }
    trials
}
