//! Runs that are made, stepped, cloned, resumed and dropped at random.

use crate::memory::Usage;
use crate::run::{Run, Way};
use crate::{Target, steps};

/// Runs that live at one time.
const LIVE: usize = 4;
/// Now and then all runs end, and what is in use is measured.
const ROUND: usize = 100;

/// xorshift64: the same world each time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Steps after which pools, caches and compiled kernels have what they need. Fewer tell nothing about
/// growth.
const SETTLES: usize = 1500;

/// No drift from the oracle, and no more memory after any round than once it settled.
pub(crate) fn soak(target: &Target) -> Result<(), String> {
    let steps = steps();
    let mut dice = Dice(0x5eed_1e55_0dd5_eed5);
    let mut settled: Option<Usage> = None;
    let mut taken = 0;
    let mut made = 0;
    while taken < steps {
        let mut runs: Vec<Run> = Vec::new();
        for _ in 0..ROUND {
            if runs.len() < LIVE && (runs.is_empty() || dice.roll(4) == 0) {
                runs.push(Run::new(target, 1 + dice.roll(40) as usize, made)?);
                made += 1;
            }
            let which = dice.roll(runs.len() as u64) as usize;
            let run = &mut runs[which];
            match dice.roll(24) {
                0 => drop(runs.swap_remove(which)),
                1 => run.resume()?,
                2 => run.shuffle(true)?,
                3 => run.shuffle(false)?,
                roll => {
                    run.step(match roll {
                        4..=6 => Way::Lean,
                        7 => Way::Restored,
                        8 | 9 => Way::Base,
                        10 => Way::Poisoned(false),
                        11 => Way::Poisoned(true),
                        _ => Way::Ordinary,
                    })?;
                    taken += 1;
                }
            }
        }
        drop(runs);
        let usage = Usage::of(&target.device)?;
        match settled {
            None if taken >= SETTLES => settled = Some(usage),
            None => {}
            Some(before) => {
                // What Burn keeps of late runs is some KiB, and the allocator's ups and downs are MiB.
                let device = usage.device > before.device + before.device / 4;
                if device || usage.process > before.process + (64 << 20) {
                    return Err(format!("after {taken} steps {usage:?}, before {before:?}"));
                }
            }
        }
    }
    let last = Usage::of(&target.device)?;
    println!("{taken} steps of {made} runs; settled {settled:?}, last {last:?}");
    Ok(())
}
