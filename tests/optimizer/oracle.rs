//! A model with all kinds of parameters, compared with the oracle on the same gradients.

use super::Target;
use super::nets::{data, grads, near, parameters, read, same, text};
use burn::module::{Module, ParamId};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear,
    LinearConfig,
};
use burn::optim::momentum::MomentumConfig;
use burn::tensor::{Device, Int, Tensor, activation::relu};
use burn_wsam::reference::Oracle;
use burn_wsam::{AdamWBaseConfig, BaseConfig, SgdBaseConfig, WsamConfig};

/// Model with tied, frozen, normalised and unused layers. The embedding is also the weight of the last layer.
#[derive(Module, Debug)]
struct MixedModel {
    embedding: Embedding,
    frozen: Linear,
    layer_norm: LayerNorm,
    linear: Linear,
    batch_norm: BatchNorm,
    unused: Linear,
}

impl MixedModel {
    fn new(device: &Device) -> Self {
        device.seed(1);
        Self {
            embedding: EmbeddingConfig::new(7, 6).init(device),
            frozen: LinearConfig::new(6, 6).init(device).no_grad(),
            layer_norm: LayerNormConfig::new(6).init(device),
            linear: LinearConfig::new(6, 6).init(device),
            batch_norm: BatchNormConfig::new(6).init(device),
            unused: LinearConfig::new(6, 2).init(device),
        }
    }

    fn loss(&self, batch: u64) -> Tensor<1> {
        let device = self.linear.weight.device();
        let words = (0..12).map(|i| ((i * i + batch) % 7) as i32).collect::<Vec<_>>();
        let words = Tensor::<1, Int>::from_ints(words.as_slice(), &device).reshape([12, 1]);
        let hidden: Tensor<2> = self.embedding.forward(words).reshape([12, 6]);
        let hidden = self.layer_norm.forward(self.frozen.forward(hidden));
        let hidden = relu(self.batch_norm.forward(self.linear.forward(hidden)));
        let out = hidden.matmul(self.embedding.weight.val().transpose());
        (out - data([12, 7], batch, &device)).powi_scalar(2).mean()
    }
}

fn values(read: Vec<(String, ParamId, Vec<f32>)>) -> Vec<Vec<f64>> {
    let widened = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
    read.into_iter().map(|(_, _, values)| widened(values)).collect()
}

/// Checks the parameters in `ids` against the oracle's weights.
fn check_weights<M: Module>(
    what: &str,
    ids: &[ParamId],
    got: &M,
    want: &[Vec<f64>],
) -> Result<(), String> {
    let got: Vec<_> = read(got, None).into_iter().filter(|(_, id, _)| ids.contains(id)).collect();
    if got.len() != want.len() {
        return Err(format!("{what}: {} parameters, expected {}", got.len(), want.len()));
    }
    let mut pairs = got.iter().zip(want);
    pairs.try_for_each(|((path, _, got), want)| near(&format!("{what}: {path}"), got, want))
}

pub(crate) fn all_kinds(target: &Target) -> Result<(), String> {
    let momentum = SgdBaseConfig::new().with_momentum(Some(MomentumConfig::new()));
    for base in [BaseConfig::from(momentum), AdamWBaseConfig::new().into()] {
        for decouple in [false, true] {
            let config = WsamConfig::new(base.clone())
                .with_gamma(0.8)
                .with_decouple(decouple)
                .with_max_norm(Some(0.2));
            ten_steps(target, &config).map_err(|error| format!("{config:?}: {error}"))?;
        }
    }
    Ok(())
}

fn ten_steps(target: &Target, config: &WsamConfig) -> Result<(), String> {
    let mut optim = target.init(config)?;
    let mut model = MixedModel::new(&target.device);
    let (frozen, unused) = (parameters(&model.frozen), parameters(&model.unused));
    let mut oracle: Option<(Oracle, Vec<ParamId>)> = None;
    for batch in 0..10 {
        let first = grads(&model.loss(batch), &model);
        let g = read(&model, Some(&first));
        let (oracle, ids) = oracle.get_or_insert_with(|| {
            let ids: Vec<_> = g.iter().map(|(_, id, _)| *id).collect();
            let weights = read(&model, None).into_iter().filter(|(_, id, _)| ids.contains(id));
            (Oracle::new(optim.hyperparameters().clone(), values(weights.collect())), ids)
        });
        // One for the embedding, two for each of two norms, two for the linear layer.
        if ids.len() != 7 {
            return Err(format!("{} parameters have a gradient, expected 7", ids.len()));
        }
        let want = oracle.ascent(&values(g)).map_err(text)?;
        let ascended = optim.ascend(model, first).map_err(text)?;
        check_weights(&format!("w + e_w, step {batch}"), ids, ascended.model(), &want)?;
        let second = grads(&ascended.model().loss(batch), ascended.model());
        let g_perturbed = values(read(ascended.model(), Some(&second)));
        oracle.descent(0.01, &g_perturbed).map_err(text)?;
        model = optim.descend(0.01, ascended, second).map_err(text)?;
        check_weights(&format!("w, step {batch}"), ids, &model, oracle.weights())?;
    }
    same("the frozen layer", &model.frozen, &frozen)?;
    same("the unused layer", &model.unused, &unused)
}
