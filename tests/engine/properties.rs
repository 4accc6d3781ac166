//! Whatever a caller may ask for, against the oracle.

use super::*;
use crate::common::gpu::Gpu;
use crate::common::raw::engine;
use burn_wsam::method::{Clip, ClipScope};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const CASES: u32 = 64;

fn bases() -> impl Strategy<Value = Base> {
    let momentum = (0.0..0.99, 0.0..=1.0, any::<bool>())
        .prop_map(|(momentum, dampening, nesterov)| Momentum { momentum, dampening, nesterov });
    // A larger epsilon than usual: m / sqrt(v) of a gradient that cancels to nothing is all rounding.
    let moments = (0.0..0.95, 0.5..0.9999, 1e-3..1e-1, 0.0..0.1, any::<bool>()).prop_map(
        |(beta_1, beta_2, epsilon, weight_decay, amsgrad)| Moments {
            beta_1,
            beta_2,
            epsilon,
            weight_decay,
            amsgrad,
        },
    );
    prop_oneof![
        (proptest::option::of(momentum), 0.0..0.1)
            .prop_map(|(momentum, weight_decay)| Base::Sgd { momentum, weight_decay }),
        moments.clone().prop_map(Base::Adam),
        moments.prop_map(Base::AdamW),
    ]
}

fn hyperparameters() -> impl Strategy<Value = Hyperparameters> {
    let scope = prop_oneof![Just(ClipScope::Both), Just(ClipScope::PerturbedOnly)];
    let clip = (1e-2..1e2, scope).prop_map(|(max_norm, scope)| Clip { max_norm, scope });
    let coupling = prop_oneof![Just(Coupling::Coupled), Just(Coupling::Decoupled)];
    (bases(), 0.0..2.0, 0.0..0.9, any::<bool>(), coupling, proptest::option::of(clip)).prop_map(
        |(base, rho, gamma, adaptive, coupling, clip)| Hyperparameters {
            rho,
            gamma,
            adaptive,
            coupling,
            clip,
            ..Hyperparameters::new(base)
        },
    )
}

pub(crate) fn any_step(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let placement = prop_oneof![Just(Placement::OutOfPlace), Just(Placement::InPlace)];
    let lens =
        proptest::collection::vec(prop_oneof![0usize..20, 200usize..300, 4000usize..9000], 0..6);
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&(hyperparameters(), placement, lens), |(hyper, placement, lens)| {
            against_oracle(&engine, hyper, placement, &lens, 3).map_err(TestCaseError::fail)
        })
        .map_err(|error| error.to_string())
}
