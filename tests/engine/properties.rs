//! Property tests: random steps against the oracle.

use super::*;
use burn_wsam::method::{Clip, ClipScope, Group, NormScope};
use burn_wsam::reference::Oracle;
use burn_wsam_support::engine_route::engine;
use burn_wsam_support::gpu::Gpu;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const CASES: u32 = 64;

fn bases() -> impl Strategy<Value = Base> {
    let momentum = (0.0..0.99, 0.0..=1.0, any::<bool>())
        .prop_map(|(momentum, dampening, nesterov)| Momentum { momentum, dampening, nesterov });
    // A larger epsilon than usual, because m / sqrt(v) of gradients that cancel is rounding error.
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

fn group() -> impl Strategy<Value = Group> {
    let some = proptest::option::of::<std::ops::Range<f64>>;
    let scope = prop_oneof![Just(NormScope::Global), Just(NormScope::Own)];
    let adaptive = proptest::option::of(any::<bool>());
    (0.0..3.0, some(0.0..0.1), some(0.0..2.0), some(0.0..0.9), adaptive, 0..4, scope).prop_map(
        |(lr_factor, weight_decay, rho, gamma, adaptive, still, norm)| Group {
            lr_factor,
            weight_decay,
            rho,
            gamma,
            adaptive,
            perturbed: still != 0,
            norm,
        },
    )
}

/// Random groups, with tensors assigned at random.
pub(crate) fn any_groups(gpu: &Gpu) -> Result<(), String> {
    let engine = groups::engine_of_few_frames(gpu)?;
    let tensors = proptest::collection::vec((0usize..700, 0usize..100), 0..8);
    let groups = proptest::collection::vec(group(), 1..5);
    let placement = prop_oneof![Just(Placement::OutOfPlace), Just(Placement::InPlace)];
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(
            &(hyperparameters(), groups, placement, tensors),
            |(hyper, groups, placement, tensors)| {
                let of: Vec<_> =
                    tensors.iter().map(|(_, draw)| draw % (groups.len() + 1)).collect();
                let lens: Vec<_> = tensors.into_iter().map(|(len, _)| len).collect();
                let hyper = Hyperparameters { groups, ..hyper };
                let weight = model(1, &lens);
                let oracle = Oracle::with_groups(hyper.clone(), weight.clone(), &of);
                let mut oracle =
                    OracleRoute(oracle.map_err(|e| TestCaseError::fail(e.to_string()))?);
                let route = EngineRoute::new(&engine, hyper.clone(), placement, &weight);
                compare_steps(&hyper, &mut route.with_groups(&of), &mut oracle, &lens, 2)
                    .map_err(TestCaseError::fail)
            },
        )
        .map_err(|error| error.to_string())
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
