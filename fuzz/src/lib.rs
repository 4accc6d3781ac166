//! A model of two parameters with the same ids in every process.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};

#[derive(Module, Debug)]
pub struct Subject {
    a: Param<Tensor<1>>,
    b: Param<Tensor<2>>,
}

pub fn device() -> Device {
    Device::flex().autodiff()
}

impl Subject {
    pub fn new() -> Self {
        let device = device();
        let a = Tensor::from_floats([0.5, -1.0, 2.0], &device);
        let b = Tensor::from_floats([[0.25, -0.75], [1.5, 0.0]], &device);
        Self {
            a: Param::initialized(ParamId::from(1), a.require_grad()),
            b: Param::initialized(ParamId::from(2), b.require_grad()),
        }
    }

    pub fn ids(&self) -> [ParamId; 2] {
        [self.a.id, self.b.id]
    }

    pub fn values(&self) -> String {
        format!("{:?} {:?}", self.a.val().into_data(), self.b.val().into_data())
    }
}

pub fn loss(model: &Subject) -> Tensor<1> {
    model.a.val().powi_scalar(2).sum() + model.b.val().powi_scalar(4).sum()
}

/// If `WSAM_FUZZ_SEED` is set, writes the fuzzer's first input to that file and exits.
pub fn seed(bytes: impl FnOnce() -> Vec<u8>) {
    if let Some(path) = std::env::var_os("WSAM_FUZZ_SEED") {
        std::fs::write(path, bytes()).expect("the folder of WSAM_FUZZ_SEED must exist");
        std::process::exit(0);
    }
}
