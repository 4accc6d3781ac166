//! `wsam check`: compares the engine with the golden files on this machine's adapters.

use crate::adapters::{chosen, engine, full_name};
use crate::error::Error;
use crate::options::CheckOptions;
use crate::output;
use crate::results::caught;
use burn_wsam::engine::Engine;
use burn_wsam::method::Coupling;
use burn_wsam_support::adapters::Gpu;
use burn_wsam_support::engine_route::{EngineRoute, Placed};
use burn_wsam_support::family::{self, FamilyGolden};
use burn_wsam_support::family_engine_route::FamilyEngineRoute;
use burn_wsam_support::family_replay::replay_family;
use burn_wsam_support::golden::{self, Golden, Toy};
use burn_wsam_support::lean_route::LeanRoute;
use burn_wsam_support::replay::{Route, Tolerance, Worst, replay_rounded};
use burn_wsam_support::toy::{basin, toy_path};
use include_dir::{Dir, include_dir};
use std::path::PathBuf;
use std::sync::Arc;

/// The golden files that are compiled into the command.
static GOLDEN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../tests/golden");
/// Those of WSAM's relatives.
static RELATIVES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../tests/golden-family");

/// The golden files to check.
pub(crate) struct Goldens {
    wsam: Vec<Golden>,
    relatives: Vec<FamilyGolden>,
    pub(crate) toys: Vec<Toy>,
}

/// Reads the golden files of `folder`, which may hold files of WSAM and of its relatives, or those that are compiled in.
pub(crate) fn load(folder: Option<&PathBuf>) -> Result<Goldens, Error> {
    let texts = match folder {
        Some(folder) => golden::read_texts(folder).map_err(Error::Golden)?,
        None => {
            let mut texts = compiled_in(&GOLDEN)?;
            texts.extend(compiled_in(&RELATIVES)?);
            texts
        }
    };
    let (mut of_wsam, mut relatives) = (Vec::new(), Vec::new());
    for (path, text) in texts {
        // A text that is not JSON is reported by `golden::parse`.
        match golden::parse_json(&path, &text) {
            Ok(json) if golden::is_family(&json) => {
                let file =
                    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into());
                let parsed = family::parse(file, &json);
                relatives
                    .push(parsed.map_err(|e| Error::Golden(format!("{}: {e}", path.display())))?);
            }
            _ => of_wsam.push((path, text)),
        }
    }
    let (wsam, toys) = golden::parse(&of_wsam).map_err(Error::Golden)?;
    Ok(Goldens { wsam, relatives, toys })
}

/// The paths and texts of the golden files in a folder that is compiled in.
fn compiled_in(folder: &Dir<'_>) -> Result<Vec<(PathBuf, String)>, Error> {
    let mut texts = Vec::new();
    for file in folder.files().filter(|file| file.path().extension().is_some_and(|e| e == "json")) {
        let not_text = || Error::Golden(format!("{}: not UTF-8", file.path().display()));
        let text = file.contents_utf8().ok_or_else(not_text)?;
        texts.push((file.path().to_owned(), text.to_owned()));
    }
    Ok(texts)
}

pub(crate) fn check(options: &CheckOptions) -> Result<(), Error> {
    // Files are read before adapters are opened, so that a bad file is reported first.
    let goldens = load(options.golden.as_ref())?;
    if goldens.wsam.is_empty() && goldens.relatives.is_empty() {
        let folder = options.golden.as_ref().map_or("", |folder| folder.to_str().unwrap_or(""));
        return Err(Error::Golden(format!("{folder}: no trajectory found")));
    }
    let mut counts = Counts::default();
    let mut failures = Vec::new();
    for gpu in chosen(&options.adapter)? {
        // A failure on one adapter is reported at the end, after the other adapters are checked.
        match caught(&full_name(&gpu), || check_adapter(&gpu, &goldens, &mut counts)) {
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
fn check_adapter(gpu: &Gpu, goldens: &Goldens, counts: &mut Counts) -> Result<(), Error> {
    let info = gpu.adapter.get_info();
    let (name, driver) = (info.name, format!("{} {}", info.driver, info.driver_info));
    output::line(format_args!("{name} ({}, {driver})", info.backend))?;
    let engine = Arc::new(engine(gpu)?);
    output::line(format_args!(
        "largest error, as a share of the allowed error: out of place, in place, lean"
    ))?;
    let replayed = goldens.wsam.iter().map(|golden| (&golden.file, replays(&engine, golden)));
    let relatives = &goldens.relatives;
    let relatives =
        relatives.iter().map(|golden| (&golden.file, relative_replays(&engine, golden)));
    for (file, results) in replayed.chain(relatives) {
        counts.all += results.len();
        counts.failed += results.iter().filter(|result| result.is_err()).count();
        report(file, &results)?;
    }
    for toy in &goldens.toys {
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
    let mut routes: Vec<Box<dyn Route>> = [Placed::OutOfPlace, Placed::InPlace]
        .into_iter()
        .map(|placement| EngineRoute::new(engine, hyper.clone(), placement, weight))
        .map(|route| Box::new(route) as Box<dyn Route>)
        .collect();
    if hyper.coupling == Coupling::Decoupled {
        routes.push(Box::new(LeanRoute::new(engine, hyper.clone(), *lr, weight)));
    }
    routes.iter_mut().map(|route| replay_rounded(golden, route.as_mut())).collect()
}

/// Replays a file of another method in both placements.
fn relative_replays(engine: &Arc<Engine>, golden: &FamilyGolden) -> Vec<Result<Worst, String>> {
    let replay = |placement| {
        let (hyper, weight) = (golden.hyper.clone(), &golden.weight);
        let mut route = FamilyEngineRoute::new(engine, hyper, placement, weight);
        replay_family(golden, &mut route, Tolerance::SINGLE)
    };
    [Placed::OutOfPlace, Placed::InPlace].into_iter().map(replay).collect()
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
        let mut route = EngineRoute::new(engine, hyper, Placed::OutOfPlace, &start);
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
