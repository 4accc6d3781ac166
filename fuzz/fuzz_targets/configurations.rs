//! Loads bytes as a configuration, which is refused or takes a step.

#![no_main]

use burn::config::Config;
use burn::module::ParamGroup;
use burn_wsam::{AdamWBaseConfig, GroupConfig, LossScaleConfig, WsamConfig};
use burn_wsam_fuzz::{Subject, device, loss, seed};
use libfuzzer_sys::fuzz_target;

/// A valid configuration with every kind of option.
fn valid() -> Vec<u8> {
    let group = GroupConfig::new(ParamGroup::from_any_predicates(vec!["a", "b"]));
    let config = WsamConfig::new(AdamWBaseConfig::new().into())
        .with_max_norm(Some(1.0))
        .with_loss_scale(Some(LossScaleConfig::new()))
        .with_groups(vec![group.with_rho(Some(0.1)).with_perturbed(false)]);
    config.to_string().into_bytes()
}

fuzz_target!(init: seed(valid), |data: &[u8]| {
    let Ok(config) = WsamConfig::load_binary(data) else { return };
    let Ok(mut optim) = config.init(&device()) else { return };
    let model = Subject::new();
    let before = model.values();
    if let Err(rejected) = optim.step(0.1, model, loss) {
        assert_eq!(rejected.model.values(), before);
    }
});
