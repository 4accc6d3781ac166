//! Pairwise tests: generated configurations that cover every pair of values of every two options. Each is compared
//! with the oracle and the other route, steps over a NaN, and resumes in the middle (`pairwise/run.rs`).

mod run;

use super::Target;
use super::nets::text;
use burn::module::ParamGroup;
use burn::optim::SgdConfig;
use burn::optim::momentum::MomentumConfig;
use burn_wsam::{
    AdamBaseConfig, AdamWBaseConfig, BaseConfig, GroupConfig, LossScaleConfig, NonFinitePolicy,
    RoutePolicy, SgdBaseConfig, Wsam, WsamConfig,
};
use std::collections::HashSet;

/// The options, and the number of values that each takes here. The first value is the default.
const OPTIONS: [(&str, usize); 15] = [
    ("base", 7),
    ("decouple", 2),
    ("adaptive", 2),
    ("max_norm", 3),
    ("non_finite", 4),
    ("loss_scale", 3),
    ("lean", 2),
    ("mask_seed", 2),
    ("stochastic rounding", 2),
    ("master weights", 2),
    ("groups", 3),
    ("track_norms", 2),
    ("precision", 2),
    ("calls", 4),
    ("gamma", 2),
];

/// A value index for each option.
type Case = [usize; OPTIONS.len()];

const BASE: usize = 0;
const DECOUPLE: usize = 1;
const ADAPTIVE: usize = 2;
const MAX_NORM: usize = 3;
const NON_FINITE: usize = 4;
const LOSS_SCALE: usize = 5;
const LEAN: usize = 6;
const MASKS: usize = 7;
const ROUNDING: usize = 8;
const MASTERS: usize = 9;
const GROUPS: usize = 10;
const TRACK_NORMS: usize = 11;
const PRECISION: usize = 12;
const CALLS: usize = 13;
const GAMMA: usize = 14;

/// A Burn optimizer as the base.
const BURN: usize = 6;
const PROPAGATE: usize = 3;
const DYNAMIC: usize = 2;

/// Conflicting pairs, with the words that the error must contain.
#[rustfmt::skip]
const CONFLICTS: [[(usize, usize, &str); 2]; 7] = [
    [(LEAN, 1, "lean"), (DECOUPLE, 1, "decouple")],
    [(LEAN, 1, "lean"), (MASTERS, 1, "master weights")],
    [(LEAN, 1, "lean"), (BASE, BURN, "Burn optimizer")],
    [(LEAN, 1, "lean"), (NON_FINITE, 1, "BaseStep")],
    [(MASTERS, 1, "master weights"), (BASE, BURN, "Burn optimizer")],
    [(GROUPS, 2, "group"), (BASE, BURN, "Burn optimizer")],
    [(LOSS_SCALE, DYNAMIC, "loss_scale"), (NON_FINITE, PROPAGATE, "Propagate")],
];

fn conflict(case: &Case) -> Option<&'static [(usize, usize, &'static str); 2]> {
    CONFLICTS.iter().find(|pair| pair.iter().all(|(option, value, _)| case[*option] == *value))
}

fn config(case: &Case) -> WsamConfig {
    let momentum = |nesterov| MomentumConfig::new().with_dampening(0.3).with_nesterov(nesterov);
    let decay = || Some(burn::optim::decay::WeightDecayConfig::new(0.02));
    let base: BaseConfig = match case[BASE] {
        0 => SgdBaseConfig::new().into(),
        1 => SgdBaseConfig::new().with_momentum(Some(momentum(false))).into(),
        2 => SgdBaseConfig::new()
            .with_momentum(Some(momentum(true)))
            .with_weight_decay(decay())
            .into(),
        3 => AdamBaseConfig::new().with_weight_decay(decay()).into(),
        4 => AdamWBaseConfig::new().with_weight_decay(0.02).into(),
        5 => AdamWBaseConfig::new().with_amsgrad(true).into(),
        _ => BaseConfig::Burn,
    };
    // 1: settings that a Burn optimizer as the base supports too; 2: the others.
    let own = GroupConfig::new(ParamGroup::from_predicate("half")).with_own_norm(true);
    let still = GroupConfig::new(ParamGroup::from_predicate("still")).with_perturbed(false);
    let groups = match case[GROUPS] {
        0 => vec![],
        1 => vec![own.with_rho(Some(0.3)).with_gamma(Some(0.6)), still],
        _ => vec![own.with_lr_factor(0.5), still.with_weight_decay(Some(0.1))],
    };
    let non_finite = [
        NonFinitePolicy::Skip,
        NonFinitePolicy::BaseStep,
        NonFinitePolicy::Refuse,
        NonFinitePolicy::Propagate,
    ];
    let loss_scale = match case[LOSS_SCALE] {
        0 => None,
        1 => Some(LossScaleConfig::fixed(8.0)),
        _ => Some(LossScaleConfig::new().with_initial(4.0).with_interval(2)),
    };
    WsamConfig::new(base)
        .with_rho(0.2)
        .with_gamma([0.8, 0.45][case[GAMMA]])
        .with_decouple(case[DECOUPLE] == 0)
        .with_adaptive(case[ADAPTIVE] == 1)
        .with_max_norm((case[MAX_NORM] > 0).then_some(0.5))
        .with_clip_perturbed_only(case[MAX_NORM] == 2)
        .with_non_finite(non_finite[case[NON_FINITE]])
        .with_loss_scale(loss_scale)
        .with_lean(case[LEAN] == 1)
        .with_mask_seed((case[MASKS] == 1).then_some(11))
        .with_stochastic_rounding((case[ROUNDING] == 1).then_some(5))
        .with_master_weights(case[MASTERS] == 1)
        .with_groups(groups)
        .with_track_norms(case[TRACK_NORMS] == 1)
}

/// Momentum of the Burn optimizer. The oracle gets the same momentum in its own base optimizer.
fn burn_momentum() -> MomentumConfig {
    MomentumConfig::new().with_dampening(0.2)
}

fn init(case: &Case, target: &Target) -> Result<Wsam, String> {
    let config = config(case).with_route(target.policy);
    match case[BASE] {
        BURN => {
            let base = SgdConfig::new().with_momentum(Some(burn_momentum())).init();
            config.init_with(base, &target.device).map_err(text)
        }
        _ => config.init(&target.device).map_err(text),
    }
}

/// The configuration from which the oracle is made.
fn oracle_config(case: &Case) -> WsamConfig {
    let config = config(case);
    match case[BASE] {
        BURN => {
            let base = SgdBaseConfig::new().with_momentum(Some(burn_momentum()));
            config.with_base(base)
        }
        _ => config,
    }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        // Knuth's linear congruential generator; the high bits are the better ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % end as u64) as usize
    }
}

type Pair = [(usize, usize); 2];

fn pairs_of(case: &Case) -> impl Iterator<Item = Pair> + '_ {
    (0..OPTIONS.len())
        .flat_map(move |a| (a + 1..OPTIONS.len()).map(move |b| [(a, case[a]), (b, case[b])]))
}

/// All pairs of values that do not conflict.
fn all_pairs() -> HashSet<Pair> {
    let mut all = HashSet::new();
    for a in 0..OPTIONS.len() {
        for b in a + 1..OPTIONS.len() {
            for value_a in 0..OPTIONS[a].1 {
                for value_b in 0..OPTIONS[b].1 {
                    let mut case = Case::default();
                    (case[a], case[b]) = (value_a, value_b);
                    if conflict(&case).is_none() {
                        all.insert([(a, value_a), (b, value_b)]);
                    }
                }
            }
        }
    }
    all
}

/// Cases that cover all pairs. Each case starts from a pair that is not covered yet, and takes for every other
/// option the value that covers most new pairs.
fn cover(seed: u64) -> Vec<Case> {
    let mut rng = Rng(seed);
    let mut missing = all_pairs();
    let mut cases = Vec::new();
    while !missing.is_empty() {
        let best = (0..20).map(|_| fill(&missing, &mut rng)).max_by_key(|(_, gain)| *gain);
        let Some((case, _)) = best else { break };
        for pair in pairs_of(&case) {
            missing.remove(&pair);
        }
        cases.push(case);
    }
    cases
}

fn fill(missing: &HashSet<Pair>, rng: &mut Rng) -> (Case, usize) {
    let mut sorted: Vec<_> = missing.iter().collect();
    sorted.sort_unstable();
    let start = *sorted[rng.below(sorted.len())];
    let mut case = Case::default();
    let mut set = Vec::new();
    for (option, value) in start {
        case[option] = value;
        set.push(option);
    }
    let mut rest: Vec<usize> = (0..OPTIONS.len()).filter(|option| !set.contains(option)).collect();
    while !rest.is_empty() {
        let option = rest.swap_remove(rng.below(rest.len()));
        let first = rng.below(OPTIONS[option].1);
        let gain = |value: usize| {
            let mut tried = case;
            tried[option] = value;
            let refused = CONFLICTS.iter().any(|pair| {
                let inside = |(o, v, _): &(usize, usize, &str)| {
                    (set.contains(o) || *o == option) && tried[*o] == *v
                };
                pair.iter().all(inside)
            });
            let covers = |other: &&usize| {
                let mut pair = [(option, value), (**other, case[**other])];
                pair.sort_unstable();
                missing.contains(&pair)
            };
            if refused { None } else { Some(set.iter().filter(covers).count()) }
        };
        let values = (0..OPTIONS[option].1).map(|i| (first + i) % OPTIONS[option].1);
        let best = values.filter_map(|value| Some((gain(value)?, value))).max_by_key(|best| best.0);
        case[option] = best.map_or(0, |(_, value)| value);
        set.push(option);
    }
    let gain = pairs_of(&case).filter(|pair| missing.contains(pair)).count();
    (case, gain)
}

/// Number of covers, from `WSAM_PAIRWISE_ROUNDS`. Each cover contains other triples of values.
fn rounds() -> u64 {
    let rounds = std::env::var("WSAM_PAIRWISE_ROUNDS").ok();
    rounds.map_or(2, |rounds| rounds.parse().expect("WSAM_PAIRWISE_ROUNDS is a number of rounds"))
}

fn describe(case: &Case) -> String {
    let named = OPTIONS.iter().zip(case).filter(|(_, value)| **value > 0);
    named.map(|((name, _), value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

pub(crate) fn pairs(target: &Target) -> Result<(), String> {
    let mut count = 0;
    for round in 0..rounds() {
        for mut case in cover(0x5eed + round) {
            if target.policy != RoutePolicy::Fused {
                // Stochastic rounding requires the fused route, which covers its pairs.
                case[ROUNDING] = 0;
            }
            count += 1;
            run::case(target, &case).map_err(|error| format!("{}: {error}", describe(&case)))?;
        }
    }
    println!("{count} configurations, {} pairs of values", all_pairs().len());
    Ok(())
}

/// Each conflicting pair is refused with both options named, and no other pair is refused.
pub(crate) fn refused(target: &Target) -> Result<(), String> {
    let mut refused = 0;
    for a in 0..OPTIONS.len() {
        for b in a + 1..OPTIONS.len() {
            for value_a in 0..OPTIONS[a].1 {
                for value_b in 0..OPTIONS[b].1 {
                    let mut case = Case::default();
                    (case[a], case[b]) = (value_a, value_b);
                    if case[ROUNDING] == 1 && target.policy != RoutePolicy::Fused {
                        continue;
                    }
                    let made = init(&case, target);
                    match (conflict(&case), made) {
                        (None, Ok(_)) => {}
                        (Some(pair), Err(error))
                            if pair.iter().all(|(_, _, name)| error.contains(name)) =>
                        {
                            refused += 1;
                        }
                        (_, made) => {
                            return Err(format!("{}: {:?}", describe(&case), made.map(|_| ())));
                        }
                    }
                }
            }
        }
    }
    if refused == CONFLICTS.len() { Ok(()) } else { Err(format!("{refused} pairs are refused")) }
}
