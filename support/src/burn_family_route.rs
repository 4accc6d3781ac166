//! [`BurnFamilyRoute`], the Burn optimizer as a route of the replay of WSAM's relatives.

use super::burn_route::{Model, Weight, config, gradients, weights};
use super::family::FamilyGolden;
use super::family_replay::FamilyRoute;
use super::golden::{Tensors, widen};
use burn::module::ParamId;
use burn::tensor::{Device, TensorData};
use burn_wsam::method::{Method, Passes};
use burn_wsam::{
    Ascended, FriendlySamConfig, GsamConfig, LookSamConfig, MethodConfig, NextStep, RoutePolicy,
    Wsam,
};

/// The configuration that means this method.
pub fn method_config(method: &Method) -> MethodConfig {
    match *method {
        Method::Wsam => MethodConfig::Wsam,
        Method::Gsam { alpha } => GsamConfig::new().with_alpha(alpha).into(),
        Method::FriendlySam { sigma, lambda } => {
            FriendlySamConfig::new().with_sigma(sigma).with_lambda(lambda).into()
        }
        Method::LookSam { alpha, k } => LookSamConfig::new().with_alpha(alpha).with_k(k).into(),
        Method::MomentumSam => MethodConfig::MomentumSam,
        other => unreachable!("no configuration for {other:?}"),
    }
}

/// The Burn optimizer with a model and a method. Takes its steps by the calls that [`Wsam::next_step`] names.
pub struct BurnFamilyRoute {
    optim: Wsam,
    device: Device,
    model: Option<Model>,
    pending: Option<Ascended<Model>>,
    /// With their lengths.
    ids: Vec<(ParamId, usize)>,
}

impl BurnFamilyRoute {
    pub fn new(
        golden: &FamilyGolden,
        device: &Device,
        policy: RoutePolicy,
    ) -> Result<Self, String> {
        let autodiff = device.clone().autodiff();
        let optim = config(&golden.hyper)
            .with_method(method_config(&golden.hyper.method))
            .with_route(policy)
            .init(&autodiff)
            .map_err(|error| error.to_string())?;
        let weights: Vec<_> = golden
            .weight
            .iter()
            .zip(&golden.shapes)
            .map(|(values, shape)| Weight::new(values, shape, &autodiff))
            .collect();
        let lens = golden.weight.iter().map(Vec::len);
        let ids = weights.iter().map(Weight::id).zip(lens).collect();
        let model = Some(Model { weights });
        Ok(Self { optim, device: device.clone(), model, pending: None, ids })
    }

    /// Perturbs along the momentum, and puts the ascent into `pending`.
    fn ascend_along_momentum(&mut self) -> Result<Tensors, String> {
        let model = self.model.take().ok_or("no model")?;
        let before = weights(&model);
        let ascended = self.optim.ascend_along_momentum(model);
        let ascended = ascended.map_err(|error| error.to_string())?;
        let perturbed = weights(ascended.model());
        let model = ascended.restore();
        if weights(&model) != before {
            return Err("restore changed the weights".to_owned());
        }
        let ascended = self.optim.ascend_along_momentum(model);
        self.pending = Some(ascended.map_err(|error| error.to_string())?);
        Ok(perturbed)
    }

    /// The state tensors of these names.
    fn planes(&mut self, names: &[&str]) -> Result<Vec<Tensors>, String> {
        let mut planes = vec![Vec::new(); names.len()];
        for (id, len) in &self.ids {
            let state = self.optim.state(*id).map_err(|error| error.to_string())?;
            for (plane, name) in planes.iter_mut().zip(names) {
                let found = state.as_ref().and_then(|state| {
                    state.tensors.iter().find(|(found, _)| found == name).map(|(_, data)| data)
                });
                plane.push(match found {
                    Some(data) => values(data)?,
                    // A parameter without elements has no state.
                    None if *len == 0 => Vec::new(),
                    None => return Err(format!("a parameter without {name}")),
                });
            }
        }
        Ok(planes)
    }
}

fn values(data: &TensorData) -> Result<Vec<f64>, String> {
    Ok(widen(&data.try_to_vec::<f32>().map_err(|error| format!("{error:?}"))?))
}

impl FamilyRoute for BurnFamilyRoute {
    fn passes(&mut self) -> Passes {
        match self.optim.next_step() {
            Ok(NextStep::TwoPasses) => Passes::Two,
            _ => Passes::One,
        }
    }

    fn gradient_point(&mut self) -> Result<Tensors, String> {
        match self.optim.next_step().map_err(|error| error.to_string())? {
            NextStep::AlongMomentum => self.ascend_along_momentum(),
            _ => Ok(weights(self.model.as_ref().ok_or("no model")?)),
        }
    }

    fn ascend(&mut self, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        let model = self.model.take().ok_or("no model")?;
        let grads = gradients(&model, grad, &self.device);
        let ascended = self.optim.ascend(model, grads).map_err(|error| error.to_string())?;
        let perturbed = weights(ascended.model());
        self.pending = Some(ascended);
        Ok(perturbed)
    }

    fn descend(&mut self, lr: f64, grad_perturbed: &[Vec<f64>]) -> Result<Tensors, String> {
        let ascended = self.pending.take().ok_or("no ascent")?;
        let grads = gradients(ascended.model(), grad_perturbed, &self.device);
        let model = self.optim.descend(lr, ascended, grads).map_err(|error| error.to_string())?;
        let values = weights(&model);
        self.model = Some(model);
        Ok(values)
    }

    fn one_pass(&mut self, lr: f64, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        if self.optim.next_step().map_err(|error| error.to_string())? == NextStep::AlongMomentum {
            if self.pending.is_none() {
                self.ascend_along_momentum()?;
            }
            return self.descend(lr, grad);
        }
        let model = self.model.take().ok_or("no model")?;
        let grads = gradients(&model, grad, &self.device);
        let stepped = self.optim.one_pass_step(lr, model, grads);
        let model = stepped.map_err(|error| error.to_string())?;
        let values = weights(&model);
        self.model = Some(model);
        Ok(values)
    }

    fn state(&mut self) -> Result<Vec<Tensors>, String> {
        let names = self.optim.hyperparameters().base.state_names();
        self.planes(names)
    }

    fn method_state(&mut self) -> Result<Vec<Tensors>, String> {
        let names = self.optim.hyperparameters().method.state_names();
        self.planes(names)
    }
}
