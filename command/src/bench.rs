//! `wsam bench`: times stages, whole steps and a plain copy.

use crate::adapters::chosen;
use crate::error::Error;
use crate::options::BenchOptions;
use crate::parameters::Parameters;
use crate::results::Results;
use crate::timing::progress;
use serde_json::Value;

pub(crate) fn bench(options: &BenchOptions) -> Result<(), Error> {
    let sets: Vec<_> = options.params.iter().map(Parameters::load).collect::<Result<_, _>>()?;
    let gpus = chosen(&options.adapter)?;
    let progress = progress(6 * sets.len() * gpus.len());
    let mut results = Results::default();
    for gpu in &gpus {
        results.on(gpu, &options.step, &progress, |timing, found| {
            for set in &sets {
                found.measure(&set.0, |found| {
                    let model = timing.model(set)?;
                    found.rows.push(timing.step(set, &model, Value::Null)?);
                    timing.stages(set, &model, &mut found.rows)?;
                    found.rows.push(timing.copy(set, &model)?);
                    drop(model);
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
