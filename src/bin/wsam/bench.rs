//! `wsam bench`: stages and whole steps beside a plain copy.

use crate::adapters::chosen;
use crate::error::Error;
use crate::measured::raw::machine;
use crate::measured::rows::{self, Row};
use crate::options::{BenchOptions, OutputOptions};
use crate::parameters::Parameters;
use crate::plot;
use crate::timing::{Timing, progress};
use serde_json::Value;

pub(crate) fn bench(options: &BenchOptions) -> Result<(), Error> {
    let sets: Vec<_> = options.params.iter().map(Parameters::load).collect::<Result<_, _>>()?;
    let gpus = chosen(&options.adapter)?;
    let progress = progress(6 * sets.len() * gpus.len());
    let mut reports = Vec::new();
    for gpu in &gpus {
        let timing = Timing::new(gpu, &options.step, &progress)?;
        let mut rows = Vec::new();
        for set in &sets {
            let model = timing.model(set)?;
            rows.push(timing.step(set, &model, Value::Null)?);
            rows.extend(timing.stages(set, &model)?);
            rows.push(timing.copy(set, &model)?);
            drop(model);
            #[cfg(feature = "burn")]
            if options.tensor_ops {
                rows.extend(timing.tensor_ops(gpu, set, &rows)?);
            }
        }
        reports.push(Report { machine: machine(&gpu.adapter.get_info()), rows });
    }
    progress.finish_and_clear();
    finish("kernels", &reports, &options.output)
}

/// Rows of one adapter.
pub(crate) struct Report {
    pub(crate) machine: Value,
    pub(crate) rows: Vec<Row>,
}

/// Prints reports and draws them, as was asked for.
pub(crate) fn finish(bench: &str, reports: &[Report], output: &OutputOptions) -> Result<(), Error> {
    let json: Vec<_> =
        reports.iter().map(|report| rows::json(bench, &report.machine, &report.rows)).collect();
    if output.json {
        println!("{:#}", Value::from(json.clone()));
    } else {
        for report in reports {
            println!("{}\n{}\n", report.machine, rows::table(&report.rows));
        }
    }
    match &output.plot {
        Some(picture) => plot::reports(&json, picture),
        None => Ok(()),
    }
}
