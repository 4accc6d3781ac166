//! `wsam bench`: times stages, whole steps and a plain copy.

use crate::adapters::chosen;
use crate::compare::Baseline;
use crate::error::Error;
use crate::method::hyperparameters;
use crate::options::BenchOptions;
#[cfg(feature = "burn")]
use crate::options::MethodChoice;
use crate::parameters::Parameters;
use crate::results::Results;
use crate::timing::progress;
use serde_json::Value;

pub(crate) fn bench(options: &BenchOptions) -> Result<(), Error> {
    hyperparameters(&options.step)?;
    #[cfg(feature = "burn")]
    if options.tensor_ops && options.step.method != MethodChoice::Wsam {
        let reason = "--tensor-ops times WSAM's step only: leave it out, or leave out --method";
        return Err(Error::Options { reason: reason.to_owned() });
    }
    let sets: Vec<_> = options.params.iter().map(Parameters::load).collect::<Result<_, _>>()?;
    let gpus = chosen(&options.adapter)?;
    let progress = progress(7 * sets.len() * gpus.len());
    let compared = options.compare.as_ref().map(|path| Baseline::read(path, &gpus));
    let mut results = Results::compared_with(compared.transpose()?);
    for gpu in &gpus {
        results.on(gpu, &options.step, &progress, |timing, found| {
            for set in &sets {
                found.measure(&set.0, |found| {
                    let model = timing.model(set)?;
                    let steps = timing.steps(set, &model, Value::Null, true)?;
                    let moved = steps.iter().find_map(|row| row.bytes).unwrap_or_default();
                    found.rows.extend(steps);
                    let copy = timing.copy(set, moved)?;
                    timing.stages(set, &model, copy.clock(), &mut found.rows)?;
                    found.rows.push(timing.copy_row(set, &copy)?);
                    drop((model, copy));
                    #[cfg(feature = "burn")]
                    if options.tensor_ops {
                        let row = timing.tensor_ops(gpu, set, &found.rows)?;
                        found.rows.extend(row);
                    }
                    Ok(())
                });
            }
        });
    }
    progress.finish_and_clear();
    results.finish("kernels", &[], &options.output)
}
