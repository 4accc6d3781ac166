//! `wsam tune`: times whole steps with several tunings.

use crate::adapters::{chosen, full_name};
use crate::error::Error;
use crate::options::{OutputOptions, TuneOptions};
use crate::output;
use crate::results::Results;
use crate::timing::progress;
use crate::tuned::Tuned;
use burn_wsam::engine::Tuning;

pub(crate) fn tune(options: &TuneOptions) -> Result<(), Error> {
    let set = options.params.load()?;
    let gpus = chosen(&options.adapter)?;
    let count = options.workgroup.len() * options.chunk_len.len();
    let progress = progress((count + 1) * gpus.len());
    let (mut results, mut fastest) = (Results::default(), Vec::new());
    for gpu in &gpus {
        results.on(gpu, &options.step, &progress, |timing, found| {
            found.measure(&set.0, |found| {
                let model = timing.model(&set)?;
                let tunings = loopable(tunings(timing.engine.tuning(), options));
                let timed = timing.tunings(&set, &model, &tunings, &mut found.failures);
                let median =
                    timed.iter().map(|tuned| (tuned.pipelined.quartiles()[1], tuned.tuning));
                let best = median.min_by(|(a, _), (b, _)| a.total_cmp(b));
                fastest.extend(
                    best.map(|(_, tuning)| format!("{}: fastest with {tuning:?}", full_name(gpu))),
                );
                let moved = timed.first().and_then(|tuned| tuned.pipelined.bytes);
                found.rows.extend(timed.into_iter().flat_map(Tuned::into_rows));
                if let Some(moved) = moved {
                    found.rows.push(timing.copy_row(&set, &timing.copy(&set, moved)?)?);
                }
                Ok(())
            });
        });
    }
    progress.finish_and_clear();
    results.finish("tuning", &fastest, &OutputOptions { json: options.json, plot: None })
}

/// Removes the tunings whose chunks are too long for the loops of their workgroups, and names them on standard
/// error. Returns all tunings if all are too long, so that the engine's error says why.
fn loopable(all: Vec<Tuning>) -> Vec<Tuning> {
    let fits = |tuning: &Tuning| tuning.chunk_len <= tuning.longest_chunk();
    let (fitting, too_long): (Vec<_>, Vec<_>) = all.into_iter().partition(fits);
    if fitting.is_empty() {
        return too_long;
    }
    for tuning in too_long {
        let (Tuning { workgroup, chunk_len, .. }, longest) = (tuning, tuning.longest_chunk());
        output::note(format_args!(
            "skipped: with workgroups of {workgroup} chunks may have at most {longest} elements, not {chunk_len}"
        ));
    }
    fitting
}

/// Combines every workgroup size with every chunk length; the other numbers are the adapter's.
fn tunings(default: Tuning, options: &TuneOptions) -> Vec<Tuning> {
    let with = |workgroup: &u32, chunk_len: &u32| {
        let (workgroup, chunk_len) = (*workgroup, *chunk_len);
        let multiple = || default.max_norm_chunk_len.checked_next_multiple_of(chunk_len);
        // The engine checks the length.
        let max_norm_chunk_len = options.max_norm_chunk_len.or_else(multiple).unwrap_or(chunk_len);
        let mut tuning = default;
        tuning.workgroup = workgroup;
        tuning.chunk_len = chunk_len;
        tuning.max_norm_chunk_len = max_norm_chunk_len;
        tuning
    };
    let all = |workgroup| options.chunk_len.iter().map(move |len| with(workgroup, len));
    options.workgroup.iter().flat_map(all).collect()
}
