//! Records and configurations damaged at random. They load with other values or are refused, without a panic, and
//! a refused record changes nothing.

use crate::nets::{Mlp, text};
use crate::world::Rng;
use crate::{Target, steps};
use burn::config::Config;
use burn::module::{ParamGroup, ParamId};
use burn::tensor::Bytes;
use burn_wsam::{AdamWBaseConfig, GroupConfig, LossScaleConfig, Wsam, WsamConfig};

/// Applies a few edits: changes, duplicates, removes or truncates bytes.
fn damaged(whole: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..=rng.below(4) {
        let len = bytes.len();
        let at = rng.below(len.max(1) as u64) as usize;
        let end = (at + 1 + rng.below(16) as usize).min(len);
        match rng.below(7) {
            0 => bytes[at..end].iter_mut().for_each(|byte| *byte = 0xff),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let doubled = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, doubled));
            }
            4 => bytes[at..end].iter_mut().for_each(|byte| *byte = 0),
            // Changes in the header are the most likely to matter.
            5 => {
                if let Some(byte) = bytes.get_mut(rng.below(400) as usize) {
                    *byte = rng.below(256) as u8;
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

fn states(optim: &Wsam, ids: &[ParamId]) -> Result<Vec<String>, String> {
    let state = |id: &ParamId| optim.state(*id).map(|state| format!("{state:?}")).map_err(text);
    ids.iter().map(state).collect()
}

pub(crate) fn records(target: &Target) -> Result<(), String> {
    let mut optim = target.init(&WsamConfig::new(AdamWBaseConfig::new().into()))?;
    let mut model = Mlp::new(&target.device);
    for batch in 0..2 {
        (model, _) = optim.step(0.01, model, |model| model.loss(batch)).map_err(text)?;
    }
    let ids = [model.a.weight.id, model.b.weight.id];
    let before = states(&optim, &ids)?;
    let whole = optim.to_bytes(&model).map_err(text)?;
    let mut rng = Rng(0xdead_beef_0bad_cafe);
    let (mut read, runs) = (0, 100 * steps());
    for run in 0..runs {
        let bytes = damaged(&whole, &mut rng);
        match optim.load_bytes(&model, Bytes::from_bytes_vec(bytes)) {
            // Another value, or one parameter fewer.
            Ok(()) => {
                read += 1;
                optim.load_bytes(&model, whole.clone()).map_err(text)?;
            }
            Err(_) => {
                if states(&optim, &ids)? != before {
                    return Err(format!("damage {run} was refused and changed the state"));
                }
            }
        }
    }
    println!("{runs} damaged records, {read} of them loaded");
    Ok(())
}

pub(crate) fn configurations(target: &Target) -> Result<(), String> {
    let group = GroupConfig::new(ParamGroup::from_any_predicates(vec!["bias", "norm"]));
    let config = WsamConfig::new(AdamWBaseConfig::new().into())
        .with_max_norm(Some(1.0))
        .with_mask_seed(Some(7))
        .with_loss_scale(Some(LossScaleConfig::new()))
        .with_groups(vec![group.with_rho(Some(0.1)).with_perturbed(false)]);
    let whole = config.to_string();
    WsamConfig::load_binary(whole.as_bytes()).map_err(text)?;
    let mut rng = Rng(0x0ddb_a115_0ddb_a115);
    let (mut read, mut made, runs) = (0, 0, 100 * steps());
    for _ in 0..runs {
        let Ok(config) = WsamConfig::load_binary(&damaged(whole.as_bytes(), &mut rng)) else {
            continue;
        };
        read += 1;
        made += usize::from(config.init(&target.device).is_ok());
    }
    println!("{runs} damaged configurations, {read} of them parsed, {made} of those accepted");
    if made == 0 { Err("no damaged configuration was accepted".into()) } else { Ok(()) }
}
