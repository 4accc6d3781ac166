//! Runs that are created, stepped, cloned, resumed and dropped at random.

use crate::memory::Usage;
use crate::run::{Run, StepKind};
use crate::{Target, steps};

/// Number of runs that exist at one time.
const LIVE: usize = 4;
/// Actions in a round. After each round all runs are dropped and memory is measured.
const ROUND: usize = 100;

/// xorshift64 with a fixed seed.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Steps after which pools, caches and compiled kernels stop growing.
const WARM_UP: usize = 1500;

/// Checks every step against the oracle, and that memory after a round does not exceed that after the warm-up.
pub(crate) fn soak(target: &Target) -> Result<(), String> {
    let steps = steps();
    let mut rng = Rng(0x5eed_1e55_0dd5_eed5);
    let mut baseline: Option<Usage> = None;
    let mut taken = 0;
    let mut made = 0;
    while taken < steps {
        let mut runs: Vec<Run> = Vec::new();
        for _ in 0..ROUND {
            if runs.len() < LIVE && (runs.is_empty() || rng.below(4) == 0) {
                runs.push(Run::new(target, 1 + rng.below(40) as usize, made)?);
                made += 1;
            }
            let which = rng.below(runs.len() as u64) as usize;
            let run = &mut runs[which];
            match rng.below(24) {
                0 => drop(runs.swap_remove(which)),
                1 => run.resume()?,
                2 => run.replace_model(true)?,
                3 => run.replace_model(false)?,
                roll => {
                    run.step(match roll {
                        4..=6 => StepKind::Lean,
                        7 => StepKind::Restored,
                        8 | 9 => StepKind::Base,
                        10 => StepKind::Poisoned(false),
                        11 => StepKind::Poisoned(true),
                        _ => StepKind::Ordinary,
                    })?;
                    taken += 1;
                }
            }
        }
        drop(runs);
        let usage = Usage::of(&target.device)?;
        match baseline {
            None if taken >= WARM_UP => baseline = Some(usage),
            None => {}
            Some(before) => {
                // Burn keeps some KiB of late runs, and the process allocator's use varies by some MiB.
                let device = usage.device > before.device + before.device / 4;
                if device || usage.process > before.process + (64 << 20) {
                    return Err(format!("after {taken} steps {usage:?}, before {before:?}"));
                }
            }
        }
    }
    let last = Usage::of(&target.device)?;
    println!("{taken} steps of {made} runs; baseline {baseline:?}, last {last:?}");
    Ok(())
}
