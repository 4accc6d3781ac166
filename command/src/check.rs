//! `wsam check`: compares the engine with the golden files on this machine's adapters.

use crate::adapters::{chosen, engine, full_name};
use crate::error::Error;
use crate::options::CheckOptions;
use crate::output;
use crate::results::caught;
use burn_wsam::engine::{Engine, Placement};
use burn_wsam::method::Coupling;
use burn_wsam_support::adapters::Gpu;
use burn_wsam_support::engine_route::EngineRoute;
use burn_wsam_support::golden::{self, Golden, Toy};
use burn_wsam_support::lean_route::LeanRoute;
use burn_wsam_support::replay::{Route, Worst, replay_rounded};
use burn_wsam_support::toy::{basin, toy_path};
use include_dir::{Dir, include_dir};
use std::path::PathBuf;
use std::sync::Arc;

/// The golden files that are compiled into the command.
static GOLDEN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../tests/golden");

/// Reads the golden files of `folder`, or those that are compiled in.
pub(crate) fn load(folder: Option<&PathBuf>) -> Result<(Vec<Golden>, Vec<Toy>), Error> {
    if let Some(folder) = folder {
        return golden::load_from(folder).map_err(Error::Golden);
    }
    let mut texts = Vec::new();
    for file in GOLDEN.files().filter(|file| file.path().extension().is_some_and(|e| e == "json")) {
        let not_text = || Error::Golden(format!("{}: not UTF-8", file.path().display()));
        texts.push((file.path().to_owned(), file.contents_utf8().ok_or_else(not_text)?));
    }
    golden::parse(&texts).map_err(Error::Golden)
}

pub(crate) fn check(options: &CheckOptions) -> Result<(), Error> {
    // Files are read before adapters are opened, so that a bad file is reported first.
    let (goldens, toys) = load(options.golden.as_ref())?;
    if goldens.is_empty() {
        let folder = options.golden.as_ref().map_or("", |folder| folder.to_str().unwrap_or(""));
        return Err(Error::Golden(format!("{folder}: no trajectory found")));
    }
    let mut counts = Counts::default();
    let mut failures = Vec::new();
    for gpu in chosen(&options.adapter)? {
        // A failure on one adapter is reported at the end, after the other adapters are checked.
        match caught(&full_name(&gpu), || check_adapter(&gpu, &goldens, &toys, &mut counts)) {
            Ok(()) => {}
            Err(error @ (Error::ClosedPipe | Error::Output(_))) => return Err(error),
            Err(error) => failures.push(error),
        }
    }
    let Counts { failed, all } = counts;
    if failed > 0 {
        failures.push(Error::Check { failed, all });
    } else if all > 0 {
        output::line(format_args!("all {all} replays within the tolerance"))?;
    }
    Error::all(failures)
}

/// Number of replays so far.
#[derive(Default)]
struct Counts {
    failed: usize,
    all: usize,
}

/// Checks one adapter.
fn check_adapter(
    gpu: &Gpu,
    goldens: &[Golden],
    toys: &[Toy],
    counts: &mut Counts,
) -> Result<(), Error> {
    let info = gpu.adapter.get_info();
    let (name, driver) = (info.name, format!("{} {}", info.driver, info.driver_info));
    output::line(format_args!("{name} ({}, {driver})", info.backend))?;
    let engine = Arc::new(engine(gpu)?);
    output::line(format_args!(
        "largest error, as a share of the allowed error: out of place, in place, lean"
    ))?;
    for golden in goldens {
        let results = replays(&engine, golden);
        counts.all += results.len();
        counts.failed += results.iter().filter(|result| result.is_err()).count();
        report(&golden.file, &results)?;
    }
    for toy in toys {
        let ends = toy_ends(&engine, toy);
        counts.all += ends.len();
        counts.failed += ends.iter().filter(|end| end.is_err()).count();
        let right = ends.iter().filter(|end| end.is_ok()).count();
        let (file, all) = (&toy.file, ends.len());
        output::line(format_args!("  {file:<38} {right} of {all} runs end in the expected basin"))?;
        for error in ends.iter().filter_map(|end| end.as_ref().err()) {
            output::line(format_args!("    FAILED {error}"))?;
        }
    }
    Ok(())
}

/// Replays a file in both placements and, for the decoupled form, in lean mode.
fn replays(engine: &Arc<Engine>, golden: &Golden) -> Vec<Result<Worst, String>> {
    let Golden { hyper, lr, weight, .. } = golden;
    let mut routes: Vec<Box<dyn Route>> = [Placement::OutOfPlace, Placement::InPlace]
        .into_iter()
        .map(|placement| EngineRoute::new(engine, hyper.clone(), placement, weight))
        .map(|route| Box::new(route) as Box<dyn Route>)
        .collect();
    if hyper.coupling == Coupling::Decoupled {
        routes.push(Box::new(LeanRoute::new(engine, hyper.clone(), *lr, weight)));
    }
    routes.iter_mut().map(|route| replay_rounded(golden, route.as_mut())).collect()
}

fn report(file: &str, results: &[Result<Worst, String>]) -> Result<(), Error> {
    let cell = |result: &Result<Worst, String>| match result {
        Ok(worst) => format!("{:>5.1} %", 100.0 * worst.score),
        Err(_) => " FAILED".to_owned(),
    };
    let cells: Vec<_> = results.iter().map(cell).collect();
    output::line(format_args!("  {file:<38} {}", cells.join("  ")))?;
    let mut errors = results.iter().filter_map(|result| result.as_ref().err());
    errors.try_for_each(|error| output::line(format_args!("    {error}")))
}

/// Runs the paper's example. Each run must end in the basin in which the authors' code ended.
fn toy_ends(engine: &Arc<Engine>, toy: &Toy) -> Vec<Result<(), String>> {
    let end = |run: &golden::ToyRun| {
        let (steps, start) = (run.path.len() - 1, vec![toy.start.to_vec()]);
        let hyper = toy.hyper(run);
        let mut route = EngineRoute::new(engine, hyper, Placement::OutOfPlace, &start);
        let (end, want) = (toy_path(toy, steps, &mut route)?[steps], run.path[steps]);
        if basin(end) == basin(want) {
            return Ok(());
        }
        let (gamma, coupling) = (run.gamma, run.coupling);
        Err(format!(
            "gamma {gamma} {coupling:?}: ended at {end:?} ({}), expected {want:?} ({})",
            basin(end),
            basin(want)
        ))
    };
    toy.runs.iter().map(end).collect()
}
