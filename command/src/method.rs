//! The method whose step is timed.

use crate::error::Error;
use crate::options::{BaseChoice, MethodChoice, Mode, StepOptions};
use burn_wsam::method::{Coupling, Hyperparameters, Method, NonFinite, Passes};
use burn_wsam_support::bench::engine_steps::{Model, Steps, bases};

/// The hyperparameters that the options select, with the base optimizer's name in the benchmarks.
///
/// # Errors
///
/// [`Error::Options`] for options that make no sense together.
pub(crate) fn hyperparameters(
    options: &StepOptions,
) -> Result<(&'static str, Hyperparameters), Error> {
    let (name, base) = bases()[match options.base {
        BaseChoice::Sgd => 0,
        BaseChoice::Momentum => 1,
        BaseChoice::AdamW => 2,
    }];
    let method = match options.method {
        MethodChoice::Wsam => Method::Wsam,
        MethodChoice::Gsam => Method::Gsam { alpha: 0.4 },
        MethodChoice::Friendly => Method::FriendlySam { sigma: 1.0, lambda: 0.6 },
        MethodChoice::Looksam | MethodChoice::LooksamBetween => {
            Method::LookSam { alpha: 0.7, k: 5 }
        }
        MethodChoice::Msam => Method::MomentumSam,
    };
    if options.mode != Mode::Decoupled && method != Method::Wsam {
        let (method, mode) = (method.name(), options.mode.name());
        let reason = format!("--mode {mode} is a form of WSAM: leave it out for {method}");
        return Err(Error::Options { reason });
    }
    let hyper = Hyperparameters {
        method,
        coupling: match options.mode {
            Mode::Coupled => Coupling::Coupled,
            Mode::Decoupled | Mode::Lean => Coupling::Decoupled,
        },
        // Without the check of `g~`, which would be one more dispatch.
        non_finite: NonFinite::Propagate,
        ..Hyperparameters::new(base)
    };
    hyper.validate_pairs().map_err(|error| Error::Options { reason: error.to_string() })?;
    Ok((name, hyper))
}

/// The slices of a model for the step to time.
pub(crate) fn slices(
    choice: MethodChoice,
    hyper: &Hyperparameters,
    model: &Model,
    lean: bool,
) -> Steps {
    match choice {
        MethodChoice::Wsam => Steps::new(model, lean),
        MethodChoice::LooksamBetween => Steps::of_method(model, hyper, Passes::One),
        _ => Steps::of_method(model, hyper, hyper.method.passes(0)),
    }
}

/// The form of WSAM's step, or the method, as rows name it after the base optimizer.
pub(crate) fn form(options: &StepOptions, hyper: &Hyperparameters) -> String {
    match (options.method, options.mode) {
        (MethodChoice::Wsam, Mode::Decoupled) => String::new(),
        (MethodChoice::Wsam, mode) => format!(", {}", mode.name()),
        (MethodChoice::LooksamBetween, _) => ", LookSAM between SAM steps".to_owned(),
        _ => format!(", {}", hyper.method.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::hyperparameters;
    use crate::options::{BaseChoice, MethodChoice, Mode, StepOptions};

    #[test]
    fn pairs_that_make_no_sense_are_refused() {
        let options = |base, mode, method| StepOptions { base, mode, method, seconds: 1.0 };
        let (momentum, sgd) = (BaseChoice::Momentum, BaseChoice::Sgd);
        let refused = |options: StepOptions| {
            hyperparameters(&options).expect_err("a pair that makes no sense").to_string()
        };
        assert!(hyperparameters(&options(momentum, Mode::Lean, MethodChoice::Wsam)).is_ok());
        assert!(hyperparameters(&options(sgd, Mode::Decoupled, MethodChoice::Gsam)).is_ok());
        let error = refused(options(momentum, Mode::Lean, MethodChoice::Gsam));
        assert_eq!(error, "--mode lean is a form of WSAM: leave it out for GSAM");
        let error = refused(options(sgd, Mode::Decoupled, MethodChoice::Msam));
        assert!(error.contains("SGD without momentum"), "{error}");
    }
}
