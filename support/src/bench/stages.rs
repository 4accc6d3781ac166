//! Timing of single stages by timestamps on the device.

use super::engine_steps::{Steps, wait};
use burn_wsam::engine::{Engine, EngineError};
use burn_wsam::layout::Stage;
use burn_wsam::method::Hyperparameters;
use std::time::Duration;

/// The stages of an ordinary or a lean step, in their order.
pub fn stages(lean: bool) -> [Stage; 4] {
    let [up, down] = if lean {
        [Stage::LeanAscent, Stage::LeanDescent]
    } else {
        [Stage::Ascent, Stage::Descent]
    };
    [Stage::Norm, Stage::NormFinish, up, down]
}

/// Its name in reports: with the base optimizer's, where it depends on it.
pub fn name(stage: Stage, base: &str) -> String {
    match stage {
        Stage::Descent | Stage::LeanAscent => format!("{}, {base}", stage.entry_point()),
        _ => stage.entry_point().to_owned(),
    }
}

/// Bytes a parameter that a stage moves, with so many states.
pub fn bytes(stage: Stage, states: u64) -> u64 {
    4 * match stage {
        Stage::Norm | Stage::NormAndFinish => 1,
        Stage::NormFinish => 0,
        Stage::Check => 1,
        Stage::Ascent => 3,
        Stage::Descent => 4 + 2 * states,
        Stage::LeanAscent => 4 + 2 * states,
        Stage::LeanDescent => 3,
    }
}

/// Device time of one stage in one step, all its dispatches together. The engine must
/// [time its dispatches](Engine::time_dispatches).
pub fn stage_time(
    engine: &Engine,
    hyper: &Hyperparameters,
    steps: &Steps,
    wanted: Stage,
) -> Result<Duration, EngineError> {
    let mut total = Duration::ZERO;
    let mut failed = None;
    steps.record(engine, hyper, |encoder| {
        engine.queue().submit([encoder.finish()]);
        wait(engine);
        match engine.read_times() {
            Ok(times) => {
                total += times
                    .iter()
                    .filter(|(stage, _)| counts_as(*stage) == wanted)
                    .map(|(_, t)| *t)
                    .sum::<Duration>();
            }
            Err(error) => failed = Some(error),
        }
    })?;
    failed.map_or(Ok(total), Err)
}

/// The stage to which a dispatch counts: a norm that finishes itself is one.
fn counts_as(stage: Stage) -> Stage {
    if stage == Stage::NormAndFinish { Stage::Norm } else { stage }
}
