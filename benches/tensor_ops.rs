//! Steps in tensor operations, with Burn's fusion and on flex, interleaved with steps of Burn's own base
//! optimizer. Prints times, their ratios in one run, and what Burn's fusion did in a step.

use burn::backend::fusion::observer::{BlockOperations, FusionObservation, FusionObserver};
use burn::tensor::Device;
use burn_wsam_support::bench::ratios;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Operations and blocks of a step.
#[derive(Default)]
struct Counts {
    registered: BTreeMap<String, usize>,
    blocks: usize,
    /// Blocks that run one operation.
    single: usize,
    longest: usize,
}

#[derive(Default)]
struct Counter(Mutex<Counts>);

impl FusionObserver for Counter {
    fn registered(&self, operation: &burn::backend::ir::OperationIr) {
        let text = format!("{operation:?}");
        let name: String =
            text.split(['{', '[']).next().unwrap_or_default().chars().take(60).collect();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.registered.entry(name).or_default() += 1;
    }

    fn block_starts(&self, block: BlockOperations<'_>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let len = block.iter().len();
        counts.blocks += 1;
        counts.single += usize::from(len == 1);
        counts.longest = counts.longest.max(len);
    }

    fn block_ran(&self) {}
}

fn counted(name: &str, run: &mut dyn FnMut()) {
    let counter = Arc::new(Counter::default());
    let observation = FusionObservation::new(counter.clone());
    run();
    drop(observation);
    let counts = counter.0.lock().unwrap_or_else(PoisonError::into_inner);
    let drops = counts.registered.iter().filter(|(name, _)| name.starts_with("Drop"));
    let drops: usize = drops.map(|(_, count)| count).sum();
    let all: usize = counts.registered.values().sum();
    if all == 0 {
        return;
    }
    println!(
        "  {name:18} {} operations, {drops} drops, {} blocks ({} of one operation, longest {})",
        all - drops,
        counts.blocks,
        counts.single,
        counts.longest
    );
    if std::env::var_os("WSAM_BENCH_KINDS").is_some() {
        println!("    {:?}", counts.registered);
    }
}

fn main() {
    let devices = [("wgpu", Device::default()), ("flex", Device::flex())];
    ratios::all(&devices, counted);
}
