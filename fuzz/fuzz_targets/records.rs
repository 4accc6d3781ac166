//! Loads bytes as an optimizer's record, which loads or is refused without a change.

#![no_main]

use burn::tensor::Bytes;
use burn_wsam::{AdamWBaseConfig, Wsam, WsamConfig};
use burn_wsam_fuzz::{Subject, device, loss, seed};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;

struct Run {
    optim: Wsam,
    model: Subject,
    record: Bytes,
    states: String,
}

impl Run {
    fn new() -> Self {
        let mut optim =
            WsamConfig::new(AdamWBaseConfig::new().into()).init(&device()).expect("made");
        let mut model = Subject::new();
        for _ in 0..2 {
            (model, _) = optim.step(0.01, model, loss).expect("stepped");
        }
        let record = optim.to_bytes(&model).expect("written");
        let states = states(&optim, &model);
        Self { optim, model, record, states }
    }
}

fn states(optim: &Wsam, model: &Subject) -> String {
    format!("{:?}", model.ids().map(|id| optim.state(id).expect("read")))
}

thread_local! {
    static RUN: RefCell<Run> = RefCell::new(Run::new());
}

fuzz_target!(
    init: seed(|| RUN.with_borrow(|run| run.record.to_vec())),
    |data: &[u8]| {
        RUN.with_borrow_mut(|run| {
            let bytes = Bytes::from_bytes_vec(data.to_vec());
            if run.optim.load_bytes(&run.model, bytes).is_ok() {
                // The bytes were a valid record with other states: a step must not panic, and the original
                // record must replace them.
                let stepped = run.optim.step(0.01, run.model.clone(), loss);
                drop(stepped.map_err(|rejected| rejected.error));
                run.optim.load_bytes(&run.model, run.record.clone()).expect("its own record");
            }
            assert_eq!(states(&run.optim, &run.model), run.states);
        });
    }
);
