//! Translates every specialisation that tests/layout validates with naga's writers for each backend of wgpu, and
//! checks the output with the backend's compiler or validator, if it is installed. See README.md.
//!
//!     burn-wsam-backends <folder for scratch files> [<libdxcompiler.so>]
//!
//! Prints one line for each target: its name, the tool that read the output, and a cell for each stage, separated
//! by tabs. Exits with 1 if anything failed, and prints the failures to stderr.

mod shipped;
mod targets;
mod tools;
mod writers;

use burn_wsam::layout::Stage;
use naga::ShaderStage;
use naga::back::pipeline_constants::process_overrides;
use shipped::Module;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use targets::{Checker, Target, Tools};
use writers::Shader;

/// Number of failures of a cell that are printed.
const PRINTED: usize = 3;

/// Results of one target and stage.
#[derive(Clone, Copy, Default)]
struct Cell {
    passed: usize,
    failed: usize,
}

type Table = [[Cell; Stage::ALL.len()]; Target::ALL.len()];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether everything passed.
fn run() -> Result<bool, String> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let folder =
        arguments.first().ok_or("the first argument, a folder for scratch files, is missing")?;
    let tools = Tools::find(arguments.get(1).map(String::as_str));
    let modules = shipped::modules()?;
    // Each thread takes the next pipeline from the shared counter.
    let pipelines: Vec<_> =
        modules.iter().flat_map(|m| (0..m.variants.len()).map(move |v| (m, v))).collect();
    let (next, table) = (AtomicUsize::new(0), Mutex::new(Table::default()));
    let work = |thread: usize| -> Result<(), String> {
        let checker = Checker::new(&tools, &Path::new(folder).join(thread.to_string()))?;
        while let Some((module, variant)) = pipelines.get(next.fetch_add(1, Ordering::Relaxed)) {
            check(&tools, &checker, module, *variant, &table)?;
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = &work;
        let started: Vec<_> = (0..threads).map(|t| scope.spawn(move || work(t))).collect();
        let mut ends = started.into_iter().map(|thread| thread.join());
        ends.try_for_each(|end| end.unwrap_or_else(|_| Err("a thread panicked".to_owned())))
    })?;
    let table = table.into_inner().map_err(|error| error.to_string())?;
    print(&tools, &table, pipelines.len());
    Ok(table.iter().flatten().all(|cell| cell.failed == 0))
}

/// Checks one pipeline with every target whose tool is installed.
fn check(
    tools: &Tools,
    checker: &Checker<'_>,
    module: &Module,
    variant: usize,
    table: &Mutex<Table>,
) -> Result<(), String> {
    let (entry_point, constants) = (module.stage.entry_point(), &module.variants[variant]);
    let entry = Some((ShaderStage::Compute, entry_point));
    let (parsed, info) = process_overrides(&module.parsed, &module.info, entry, constants)
        .map_err(|error| format!("{}: {error}", module.name))?;
    let shader = Shader { module: &parsed, info: &info, slots: &module.slots, entry_point };
    for (target, row) in Target::ALL.into_iter().zip(0..) {
        if tools.reader(target).is_err() {
            continue;
        }
        let end = checker.check(target, &shader);
        let mut table = table.lock().map_err(|error| error.to_string())?;
        let cell = &mut table[row][module.stage as usize];
        match end {
            Ok(()) => cell.passed += 1,
            Err(error) => {
                cell.failed += 1;
                if cell.failed <= PRINTED {
                    let mut constants: Vec<_> = constants.iter().collect();
                    constants.sort_by_key(|(name, _)| *name);
                    eprintln!("FAILED {}: {}, {constants:?}: {error}", target.name(), module.name);
                }
            }
        }
    }
    Ok(())
}

fn print(tools: &Tools, table: &Table, pipelines: usize) {
    let stages: Vec<_> = Stage::ALL.iter().map(|stage| stage.entry_point()).collect();
    println!("target\tread by\t{}", stages.join("\t"));
    for (target, row) in Target::ALL.into_iter().zip(table) {
        let reader = tools.reader(target);
        let cells: Vec<_> = row
            .iter()
            .map(|cell| match (&reader, cell) {
                (Err(_), _) => "absent".to_owned(),
                (Ok(_), Cell { passed: 0, failed: 0 }) => "absent".to_owned(),
                (Ok(_), Cell { passed, failed: 0 }) => {
                    format!("{} {passed}", format!("{:?}", target.status()).to_lowercase())
                }
                (Ok(_), Cell { passed, failed }) => {
                    format!("failed {failed} of {}", passed + failed)
                }
            })
            .collect();
        let reader = reader.unwrap_or_else(|reason| format!("absent: {reason}"));
        println!("{}\t{reader}\t{}", target.name(), cells.join("\t"));
    }
    eprintln!("{pipelines} specialisations, {} targets", Target::ALL.len());
}
