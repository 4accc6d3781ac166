//! Bytes that say they are a configuration: what they configure takes a step, or is refused.

#![no_main]

use burn::config::Config;
use burn::module::ParamGroup;
use burn_wsam::{AdamWBaseConfig, GroupConfig, LossScaleConfig, WsamConfig};
use burn_wsam_fuzz::{Subject, device, loss, seed};
use libfuzzer_sys::fuzz_target;

/// With something of everything in it.
fn whole() -> Vec<u8> {
    let group = GroupConfig::new(ParamGroup::from_any_predicates(vec!["a", "b"]));
    let config = WsamConfig::new(AdamWBaseConfig::new().into())
        .with_max_norm(Some(1.0))
        .with_loss_scale(Some(LossScaleConfig::new()))
        .with_groups(vec![group.with_rho(Some(0.1)).with_perturbed(false)]);
    config.to_string().into_bytes()
}

fuzz_target!(init: seed(whole), |data: &[u8]| {
    let Ok(config) = WsamConfig::load_binary(data) else { return };
    let Ok(mut optim) = config.init(&device()) else { return };
    let model = Subject::new();
    let before = model.values();
    if let Err(rejected) = optim.step(0.1, model, loss) {
        assert_eq!(rejected.model.values(), before);
    }
});
