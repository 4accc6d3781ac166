//! Data-parallel steps: replicas on the CPU and on every adapter, alone and mixed, and with the feature `remote`
//! on worker processes.

mod costs;
mod faults;
mod local;
#[cfg(feature = "fused-wsam")]
mod memory;
mod methods;
#[cfg(feature = "fused-wsam")]
mod mixed;
mod modules;
#[cfg(feature = "remote")]
mod remote;
#[cfg(feature = "remote")]
mod remote_faults;
#[cfg(feature = "remote")]
mod workers;

use burn_wsam_support::nets;
use burn_wsam_support::target::{self, Target, Test};

const TESTS: &[(&str, Test)] = &[
    ("replicas match one large batch", local::one_batch),
    ("replicas match accumulated steps", local::accumulated),
    ("methods over replicas match accumulated steps", methods::accumulated),
    ("replicas have equal weights", local::equal_weights),
    ("a report of replicas", local::report),
    ("running statistics of the first replica", modules::statistics),
    ("frozen and tied parameters of replicas", modules::frozen_and_tied),
    ("another model on the same replicas", modules::another_model),
    ("invalid shards", faults::misuse),
    ("a replica panics", faults::panics),
    ("a replica hangs", faults::hangs),
    ("a replica returns a NaN", faults::not_finite),
    ("scaled losses overflow in a replica", faults::overflow),
];

fn main() {
    #[cfg(feature = "remote")]
    workers::serve_if_worker();
    let mut trials = target::on(TESTS, &target::flex(), "flex");
    #[cfg(feature = "remote")]
    trials.extend(remote::trials());
    #[cfg(feature = "fused-wsam")]
    trials.extend(mixed::trials(TESTS));
    trials.push(costs::trial("two on flex", || Ok((vec![target::flex().device; 2], Box::new(())))));
    #[cfg(feature = "remote")]
    trials.push(costs::trial("two workers", remote::two));
    burn_wsam_support::gpu::run(trials);
}
