//! Timing of single stages by timestamps on the device.

use super::engine_steps::{Steps, wait};
use super::rows::median;
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
        Stage::AscentWithState => 4,
        Stage::Moments | Stage::MomentsWithState => 2,
        Stage::Coefficients => 0,
        Stage::Update => 3,
        Stage::MethodDescent => 4 + 2 * states,
    }
}

/// Bytes that the largest of the benchmarks' steps moves, and bytes of its tensors: AdamW, with a check of the second
/// gradient.
pub fn most_bytes(parameters: u64) -> (u64, u64) {
    let all = stages(false).into_iter().chain([Stage::Check]);
    (parameters * all.map(|stage| bytes(stage, 2)).sum::<u64>(), parameters * resident(2))
}

/// Bytes a parameter of the tensors of a step, with so many states: weight, gradient, perturbed weight, perturbed
/// gradient, states.
pub fn resident(states: u64) -> u64 {
    4 * (4 + states)
}

/// Device time of each stage of one step, all its dispatches together. The engine must
/// [time its dispatches](Engine::time_dispatches).
pub fn stage_times(
    engine: &Engine,
    hyper: &Hyperparameters,
    steps: &Steps,
) -> Result<Vec<(Stage, Duration)>, EngineError> {
    let mut all = Vec::new();
    let mut failed = None;
    steps.record(engine, hyper, |encoder| {
        engine.queue().submit([encoder.finish()]);
        wait(engine);
        match engine.read_times() {
            Ok(times) => all.extend(times.iter().map(|(stage, time)| (counts_as(*stage), *time))),
            Err(error) => failed = Some(error),
        }
    })?;
    failed.map_or(Ok(all), Err)
}

/// Device time of one stage in one step. The engine must [time its dispatches](Engine::time_dispatches).
pub fn stage_time(
    engine: &Engine,
    hyper: &Hyperparameters,
    steps: &Steps,
    wanted: Stage,
) -> Result<Duration, EngineError> {
    let times = stage_times(engine, hyper, steps)?;
    Ok(times.into_iter().filter(|(stage, _)| *stage == wanted).map(|(_, time)| time).sum())
}

/// Device time of a whole step in seconds: the sum of its stages, the median of several runs. The engine must
/// [time its dispatches](Engine::time_dispatches).
pub fn device_time(
    engine: &Engine,
    hyper: &Hyperparameters,
    steps: &Steps,
) -> Result<f64, EngineError> {
    let sum = || -> Result<f64, EngineError> {
        let times = stage_times(engine, hyper, steps)?;
        Ok(times.into_iter().map(|(_, time)| time).sum::<Duration>().as_secs_f64())
    };
    // The first run compiles and allocates.
    sum()?;
    let sums = (0..5).map(|_| sum()).collect::<Result<Vec<_>, _>>()?;
    Ok(median(&sums))
}

/// The stage to which a dispatch counts: a norm that finishes itself is one.
fn counts_as(stage: Stage) -> Stage {
    if stage == Stage::NormAndFinish { Stage::Norm } else { stage }
}

/// Each stage of timed dispatches once, in their order.
pub fn distinct(times: &[(Stage, Duration)]) -> Vec<Stage> {
    let mut found = Vec::new();
    for (stage, _) in times {
        if !found.contains(stage) {
            found.push(*stage);
        }
    }
    found
}

/// The two phases of a step, for adapters without timestamps: their names, and the stages that each has.
pub fn phases(lean: bool, base: &str) -> [(String, Vec<Stage>); 2] {
    let [norm, finish, up, down] = stages(lean);
    [("ascent", vec![norm, finish, up]), ("descent", vec![down])].map(|(phase, stages)| {
        let lean = if lean { "lean " } else { "" };
        (format!("{lean}{phase} phase, {base}"), stages)
    })
}
