//! `wsam toy`: runs the paper's two-basin example.

use crate::adapters::{chosen, engine};
use crate::check::load;
use crate::error::Error;
use crate::options::ToyOptions;
use crate::output;
use crate::plot::{self, Path, ToyFigure};
use burn_wsam::engine::Placement;
use burn_wsam::method::Coupling;
use burn_wsam_support::engine_route::EngineRoute;
use burn_wsam_support::golden::ToyRun;
use burn_wsam_support::replay::{OracleRoute, Route};
use burn_wsam_support::toy::{basin, toy_loss_grad, toy_path};
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
    let (_, toys) = load(None)?;
    let toy = toys
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
            Some(engine) => {
                Box::new(EngineRoute::new(engine, hyper, Placement::OutOfPlace, &start))
            }
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
    match &options.plot {
        Some(picture) => plot::save(&ToyFigure { paths }, picture),
        None => Ok(()),
    }
}
