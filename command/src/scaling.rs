//! `wsam scaling`: times a step for increasing numbers of parameters and of tensors.

use crate::adapters::chosen;
use crate::error::Error;
use crate::options::ScalingOptions;
use crate::parameters::Named;
use crate::results::Results;
use crate::timing::progress;
use serde_json::json;

/// Number of tensors while the number of parameters varies.
const TENSORS: u64 = 100;
/// Number of parameters while the number of tensors varies.
const PARAMETERS: u64 = 4 << 20;

pub(crate) fn scaling(options: &ScalingOptions) -> Result<(), Error> {
    let max = options.max_params << 20;
    let mut points = Vec::new();
    let mut parameters = 1 << 14;
    while parameters <= max {
        points.push(("parameters", set(parameters, TENSORS)));
        parameters *= 4;
    }
    let counts = [1, 4, 16, 64, 256, 1024, 4096, 16_384];
    points.extend(counts.map(|tensors| ("tensors", set(PARAMETERS.min(max), tensors))));

    let gpus = chosen(&options.adapter)?;
    let progress = progress(3 * points.len() * gpus.len());
    let mut results = Results::default();
    for gpu in &gpus {
        results.on(gpu, &options.step, &progress, |timing, found| {
            for (axis, set) in &points {
                found.measure(&set.0, |found| {
                    let model = timing.model(set)?;
                    let steps = timing.steps(set, &model, json!({ "axis": axis }), false)?;
                    let moved = steps.iter().find_map(|row| row.bytes).unwrap_or_default();
                    found.rows.extend(steps);
                    found.rows.push(timing.copy_row(set, &timing.copy(set, moved)?)?);
                    Ok(())
                });
                // A plan keeps its buffers alive, and each point has other buffers.
                timing.engine.forget_plans();
            }
        });
    }
    progress.finish_and_clear();
    results.finish("scaling", &[], &options.output)
}

/// Splits `parameters` into `tensors` tensors of nearly equal length.
fn set(parameters: u64, tensors: u64) -> Named {
    let len = |i| parameters * (i + 1) / tensors - parameters * i / tensors;
    (format!("{parameters} in {tensors}"), (0..tensors).map(len).collect())
}
