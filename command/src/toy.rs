//! `wsam toy`: runs the paper's two-basin example.

use crate::adapters::{chosen, engine};
use crate::check::load;
use crate::error::Error;
use crate::options::{ToyMethod, ToyOptions};
use crate::output;
use crate::plot::{self, Path, ToyFigure};
use burn_wsam::engine::Engine;
use burn_wsam::method::{Coupling, Hyperparameters, Method};
use burn_wsam::reference::Oracle;
use burn_wsam_support::engine_route::{EngineRoute, Placed};
use burn_wsam_support::family_engine_route::FamilyEngineRoute;
use burn_wsam_support::family_replay::FamilyRoute;
use burn_wsam_support::golden::{Toy, ToyRun};
use burn_wsam_support::replay::{OracleRoute, Route};
use burn_wsam_support::toy::{basin, toy_loss_grad, toy_method_path, toy_path};
use std::sync::Arc;

/// The paper's runs: the base optimizer, SAM, and WSAM with two values of gamma.
const GAMMAS: [(f64, &str); 4] =
    [(0.0, "SGD"), (0.5, "SAM"), (0.6, "WSAM, γ = 0.6"), (0.95, "WSAM, γ = 0.95")];

pub(crate) fn toy(options: &ToyOptions) -> Result<(), Error> {
    let engine = match &options.adapter {
        // The first, if the name selects several.
        Some(name) => {
            let gpu = &chosen(name)?[0];
            output::line(format_args!("in f32 on {}", crate::adapters::full_name(gpu)))?;
            Some(Arc::new(engine(gpu)?))
        }
        None => {
            output::line(format_args!("in f64 by the reference implementation"))?;
            None
        }
    };
    let goldens = load(None)?;
    let toy = goldens
        .toys
        .first()
        .ok_or_else(|| Error::Golden("no two-basin example is compiled in".to_owned()))?;
    let steps = toy.runs.first().map_or(0, |run| run.path.len().saturating_sub(1));
    output::line(format_args!(
        "SGD with momentum {} and learning rate {}, rho {}, {steps} steps from {:?}, coupled",
        toy.momentum, toy.lr, toy.rho, toy.start
    ))?;
    let mut paths = Vec::new();
    for (gamma, name) in GAMMAS {
        let run =
            ToyRun { gamma, coupling: Coupling::Coupled, path: Vec::new(), final_loss: f64::NAN };
        let (hyper, start) = (toy.hyper(&run), vec![toy.start.to_vec()]);
        let mut route: Box<dyn Route> = match &engine {
            Some(engine) => Box::new(EngineRoute::new(engine, hyper, Placed::OutOfPlace, &start)),
            None => Box::new(OracleRoute::new(hyper, start)),
        };
        let points = toy_path(toy, steps, route.as_mut()).map_err(Error::Golden)?;
        let [mu, sigma] = points[steps];
        let (loss, place) = (toy_loss_grad(mu, sigma).0, basin([mu, sigma]));
        output::line(format_args!(
            "  {name:<16} ends at ({mu:.2}, {sigma:.2}), the {place}, loss {loss:.4}"
        ))?;
        paths.push(Path { label: format!("{name}: {place}, {loss:.3}"), points });
    }
    for method in &options.method {
        let (method, name) = method_of(*method);
        let (points, gradients) = method_path(toy, steps, method, engine.as_ref())?;
        let [mu, sigma] = points[steps];
        let (loss, place) = (toy_loss_grad(mu, sigma).0, basin([mu, sigma]));
        output::line(format_args!(
            "  {name:<16} ends at ({mu:.2}, {sigma:.2}), the {place}, loss {loss:.4}, {gradients} gradients"
        ))?;
        paths.push(Path { label: format!("{name}: {place}, {loss:.3}"), points });
    }
    match &options.plot {
        Some(picture) => plot::save(&ToyFigure { paths }, picture),
        None => Ok(()),
    }
}

fn method_of(method: ToyMethod) -> (Method, &'static str) {
    let method = match method {
        ToyMethod::Gsam => Method::Gsam { alpha: 0.4 },
        ToyMethod::Friendly => Method::FriendlySam { sigma: 1.0, lambda: 0.6 },
        ToyMethod::Looksam => Method::LookSam { alpha: 0.7, k: 5 },
        ToyMethod::Msam => Method::MomentumSam,
    };
    (method, method.name())
}

/// The path of a method, and the number of gradients that it takes.
fn method_path(
    toy: &Toy,
    steps: usize,
    method: Method,
    engine: Option<&Arc<Engine>>,
) -> Result<(Vec<[f64; 2]>, usize), Error> {
    let run =
        ToyRun { gamma: 0.5, coupling: Coupling::Coupled, path: Vec::new(), final_loss: f64::NAN };
    let hyper = Hyperparameters { method, ..toy.hyper(&run) };
    let start = vec![toy.start.to_vec()];
    let mut route: Box<dyn FamilyRoute> = match engine {
        Some(engine) => Box::new(FamilyEngineRoute::new(engine, hyper, Placed::OutOfPlace, &start)),
        None => Box::new(Oracle::new(hyper, start)),
    };
    toy_method_path(toy, steps, route.as_mut()).map_err(Error::Golden)
}
