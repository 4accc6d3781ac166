//! The results, as a table and as JSON.

use crate::train::Outcome;
use serde_json::{Value, json};
use std::io::{self, Write};

const HEADINGS: [&str; 7] =
    ["optimizer", "test accuracy", "train loss", "sharpness", "s/epoch", "route", "adapter"];

/// Columns with numbers, which are aligned to the right.
const NUMBERS: std::ops::RangeInclusive<usize> = 1..=4;

/// Writes one row for each outcome.
pub(crate) fn table(out: &mut impl Write, outcomes: &[Outcome], adapter: &str) -> io::Result<()> {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(outcomes.iter().map(|outcome| cells(outcome, adapter)));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; HEADINGS.len()] = std::array::from_fn(width);
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if NUMBERS.contains(&column) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn cells(outcome: &Outcome, adapter: &str) -> [String; HEADINGS.len()] {
    [
        outcome.name.to_owned(),
        format!("{:.2} %", 100.0 * outcome.test_accuracy),
        format!("{:.4}", outcome.train_loss),
        format!("{:.2e}", outcome.sharpness),
        format!("{:.2}", outcome.epoch_time.as_secs_f64()),
        outcome.route.to_owned(),
        adapter.to_owned(),
    ]
}

/// The table as JSON.
pub(crate) fn json(outcomes: &[Outcome], adapter: &str) -> Value {
    let rows = outcomes.iter().map(|outcome| {
        json!({
            "optimizer": outcome.name,
            "test_accuracy": outcome.test_accuracy,
            "train_loss": outcome.train_loss,
            "sharpness": outcome.sharpness,
            "seconds_per_epoch": outcome.epoch_time.as_secs_f64(),
            "route": outcome.route,
            "adapter": adapter,
        })
    });
    rows.collect()
}
