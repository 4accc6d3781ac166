//! From a Burn training loop to WSAM: changes to the loop, hyperparameters, costs.
//!
//! # The loop
//!
//! A loop with a Burn optimizer takes one gradient a step. WSAM takes two, the second one at
//! perturbed weights, so it takes the loss as a closure:
//!
//! ```
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_wsam::{AdamWBaseConfig, WsamConfig, WsamError};
//!
//! # fn main() -> Result<(), WsamError> {
//! // On a GPU: burn_wsam::device()?.autodiff()
//! let device = Device::flex().autodiff();
//! let mut model = LinearConfig::new(4, 1).init(&device);
//! let mut optim = WsamConfig::adamw(AdamWBaseConfig::new()).init(&device)?;
//! println!("{}", optim.route());
//! for _ in 0..3 {
//!     let x = Tensor::<2>::random([8, 4], Distribution::Default, &device);
//!     let loss = |model: &Linear| model.forward(x.clone()).powi_scalar(2).mean();
//!     (model, _) = optim.step(1e-3, model, loss)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Check [`Wsam::route`](crate::Wsam::route) once: it shows whether steps run in the kernels, and if
//! not, the reason and what to do. A refused step returns [`Rejected`](crate::Rejected) with the unchanged
//! model; `?` keeps only the reason.
//!
//! If your loop computes gradients in another way, call [`ascend`](crate::Wsam::ascend) and
//! [`descend`](crate::Wsam::descend) instead of [`step`](crate::Wsam::step). With the two calls you scale the
//! losses by [`Wsam::loss_scale`](crate::Wsam::loss_scale) and
//! [`Ascended::loss_scale`](crate::Ascended::loss_scale) if a loss scale is configured, and restore running
//! statistics after a skipped step ([`RunningStatistics`](crate::RunningStatistics)).
//!
//! A configuration in which one option makes another ineffective is refused by
//! [`init`](crate::WsamConfig::init) with [`WsamError::Conflict`](crate::WsamError::Conflict), which names both.
//!
//! # Choosing `rho` and `gamma`
//!
//! `rho` is the radius of the perturbation and `gamma` the weight of the sharpness that it measures.
//! `gamma = 0` is the base optimizer, coupled `gamma = 1/2` is SAM, and the authors' defaults are
//! `rho = 0.05` and `gamma = 0.9`, decoupled.
//!
//! Keep the base optimizer, its learning rate and its weight decay as they are tuned, and try:
//!
//! 1. `gamma` in 0.5, 0.8, 0.9, 0.95 at `rho = 0.05`;
//! 2. then `rho` in 0.02, 0.05, 0.1, 0.2 at the best `gamma`. The SAM paper (Foret et al. 2021) sweeps
//!    0.01 to 0.5. [`adaptive`](crate::WsamConfig::adaptive) scales the perturbation with the weights and
//!    needs a larger `rho`, 0.5 to 1 in the ASAM paper (Kwon et al. 2021).
//!
//! The update weights the sharpness by `gamma / (1 - gamma)`: 1 at 0.5, 9 at 0.9, 19 at 0.95. If the
//! loss becomes noisy or diverges, lower `gamma` before the learning rate.
//! [`StepReport::sharpness`](crate::StepReport::sharpness) is the rise of the loss under the perturbation. If it
//! is always zero, `rho` is too small; if it exceeds the loss itself, `rho` is far too large.
//!
//! # Other methods, and fewer gradients
//!
//! [`WsamConfig::method`](crate::WsamConfig::method) selects one of WSAM's relatives
//! ([`Method`](crate::method::Method)), and [`pass_rule`](crate::WsamConfig::pass_rule) which steps have a second pass. Try
//! them in this order, and compare at equal time:
//!
//! 1. SAM, which is coupled WSAM at `gamma = 1/2`, or WSAM, at two gradients a step. Tune `rho` here: the other methods
//!    perturb by the same `rho`, and each adds a constant of its own. If SAM does not beat the base optimizer with the same
//!    number of *steps*, its relatives will hardly beat it with the same number of gradients.
//! 2. If it does, and time is limited: an interval ([`IntervalConfig`](crate::IntervalConfig), `every` 2 to 5) or a late
//!    start ([`start_step`](crate::WsamConfig::start_step), the last third of the steps). They have no constant to tune, store
//!    nothing, and show how many of the second gradients are needed.
//! 3. LookSAM with `k` 5 costs as much as an interval of 5, plus 4 bytes a parameter, and corrects the steps between.
//!    AE-SAM's rule spends the second gradients where the gradient is large, instead of evenly. Momentum-SAM costs one
//!    gradient in each step; it is the cheapest, and perturbs along where the weights came from, not along `g`.
//! 4. If time is not limited: GSAM (`alpha` 0.1 to 0.7, with `rho` following the learning rate) and Friendly-SAM change the
//!    direction of SAM's step at the cost of SAM. They pay where SAM already helps.
//!
//! ```
//! use burn_wsam::{AdamWBaseConfig, IntervalConfig, LookSamConfig, WsamConfig};
//!
//! let sam = WsamConfig::adamw(AdamWBaseConfig::new()).with_gamma(0.5).with_decouple(false);
//! let cheaper = sam.clone().with_pass_rule(IntervalConfig::new(5).into());
//! let late = sam.clone().with_start_step(7_000);
//! let looksam = sam.with_method(LookSamConfig::new().with_k(5).into());
//! # let _ = (cheaper, late, looksam);
//! ```
//!
//! [`StepReport::passes`](crate::StepReport::passes) says how many gradients a step took. The loss closure is called once in
//! a step of one pass. With several models in one optimizer, all their steps count for intervals and cycles.
//!
//! # Schedules, and WSAM in a part of the training
//!
//!
//! The learning rate is an argument of each step: a number, or the result of a Burn scheduler's `step`, which may
//! have a rate for each parameter. `rho` and `gamma` can be set between steps, for example from a scheduler. To
//! use WSAM only in the last part of a training, set [`start_step`](crate::WsamConfig::start_step), or call
//! [`base_step`](crate::Wsam::base_step) before: it takes one pass, costs as much as the base optimizer, and updates the same state.
//!
//! ```
//! use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
//! use burn::optim::GradientsParams;
//! # use burn::nn::{Linear, LinearConfig};
//! # use burn::tensor::{Device, Distribution, Tensor};
//! # use burn_wsam::{SgdBaseConfig, WsamConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let device = Device::flex().autodiff();
//! # let mut model = LinearConfig::new(4, 1).init(&device);
//! # let x = Tensor::<2>::random([8, 4], Distribution::Default, &device);
//! # let loss = |model: &Linear| model.forward(x.clone()).powi_scalar(2).mean();
//! let mut optim = WsamConfig::sgd(SgdBaseConfig::new()).init(&device)?;
//! let mut lr = LinearLrSchedulerConfig::new(0.1, 0.001, 100).init()?;
//! let mut rho = LinearLrSchedulerConfig::new(0.1, 0.02, 100).init()?;
//! for step in 0..100 {
//!     if step < 75 {
//!         let grads = GradientsParams::from_grads(loss(&model).backward(), &model);
//!         model = optim.base_step(lr.step(), model, grads)?;
//!     } else {
//!         optim.set_rho(rho.step().base())?;
//!         (model, _) = optim.step(lr.step(), model, loss)?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Parameter groups
//!
//! [`GroupConfig`](crate::GroupConfig) overrides settings for some parameters, matched as in Burn by path, pattern
//! or id: a factor on the learning rate, a weight decay, `rho`, `gamma`, an adaptive perturbation or none, or a
//! separate norm. Biases and normalisation layers are often neither decayed nor perturbed. To perturb only the
//! normalisation layers (Mueller et al. 2023, <https://arxiv.org/abs/2306.04226>), use a group
//! `ParamGroup::all()` with `with_perturbed(false)`, followed by a group of these layers with the default. The
//! ascent only checks the gradient of a parameter that is not perturbed. On the fused route groups add no
//! dispatches. A group that matches no parameter is refused.
//!
//! A parameter without a gradient is not stepped. With random depth or routed experts, parameters may have a
//! gradient in only one of the two passes. [`missing_gradient`](crate::WsamConfig::missing_gradient) refuses such
//! a step by default; `Hold` leaves these parameters unchanged, and `UseFirst` takes the base optimizer's step for
//! those without a second gradient.
//!
//! ```
//! use burn_wsam::{AdamWBaseConfig, MissingGradientPolicy, WsamConfig};
//!
//! let config = WsamConfig::adamw(AdamWBaseConfig::new())
//!     .with_missing_gradient(MissingGradientPolicy::Hold);
//! # let _ = config;
//! ```
//!
//! # Non-finite gradients
//!
//! By default a step with a NaN, an infinity or a norm that overflows `f32` is skipped: weights, state and running
//! statistics keep their bits, and the training continues. [`NonFinitePolicy`](crate::NonFinitePolicy) has the
//! other actions. [`skipped_steps`](crate::Wsam::skipped_steps) waits for the device, so do not call it in every
//! step. Many skipped steps mean that the learning rate or `rho` is too large, or that the loss overflows. In half
//! precision small gradients round to zero and large ones overflow. A dynamic
//! [`loss_scale`](crate::WsamConfig::loss_scale) searches for the largest factor that does not overflow. It
//! requires a policy other than `Propagate`, and is not supported under `SupervisedTraining`, where the model's
//! `TrainStep` computes the gradient.
//!
//! # Half precision
//!
//! All or some of a module's parameters may be `f16`. The step computes in `f32` and keeps an `f32` state. Rounding
//! loses the part of the perturbation that is less than half an ulp of its weight: almost nothing in `f16` below
//! some million parameters, most of it in `bf16`.
//! [`stochastic_rounding`](crate::WsamConfig::stochastic_rounding) keeps it on average, on the fused route. As with
//! any optimizer, rounding also loses small updates. [`master_weights`](crate::WsamConfig::master_weights) are an
//! `f32` copy that steps read and write. As an alternative, keep the module in `f32` and cast to half precision in
//! its forward pass.
//!
#![cfg_attr(feature = "train", doc = include_str!("guide/learner.md"))]
#![cfg_attr(
    not(feature = "train"),
    doc = "# Burn's `SupervisedTraining`\n\nThe feature `train` has a learner and a strategy for it.\n"
)]
//! # Large batches
//!
//! [`step_accumulated`](crate::Wsam::step_accumulated) takes a step over micro-batches. Both passes must use the same
//! micro-batches; a loop with `GradientsAccumulator` must ensure this itself.
//! [`Perturbation`](crate::Perturbation) selects the step of one large batch or m-sharpness. For micro-batches of
//! different sizes, pass their sizes as weights to
//! [`step_accumulated_weighted`](crate::Wsam::step_accumulated_weighted).
//!
//! # Several models, averages and target networks
//!
//! One optimizer may step several models, also with the phases of their steps interleaved. States belong to
//! parameter ids, and are kept until [`retain`](crate::Wsam::retain) or [`forget`](crate::Wsam::forget) drops those
//! of parameters that were removed or have another shape.
//!
//! A moving average or a target network in a field of the model has the ids of the trained network and its own
//! tensors: it is neither perturbed nor stepped. Parameters that are the same leaf of the autodiff graph are tied,
//! and are perturbed together.
//!
//! # Several devices
//!
//! [`step_data_parallel`](crate::Wsam::step_data_parallel) takes a step over [`Replicas`](crate::Replicas) of the model
//! on several devices, which run at the same time. `Perturbation::Whole` perturbs along the average gradient,
//! `EachMicroBatch` each replica along its own gradient, as in the authors' code. With the feature `remote` the devices
//! may be on other machines. In one thread, a replica is a micro-batch: the closure of
//! [`step_accumulated`](crate::Wsam::step_accumulated) moves the model to the device of its batch with
//! `model.clone().to_device(&device)`, through which gradients flow back, and moves the loss to the optimizer's
//! device. Do not use remote devices in this way: Burn panics in the backward pass if one is lost.
//!
//! If each replica has an optimizer (one process for each device), average the gradients between the calls.
//! Averaging before the perturbation equals one large batch:
//!
//! ```text
//! g = average(gradient(&model))                 ascended = optim.ascend(model, g)?
//! g~ = average(gradient(ascended.model()))      model = optim.descend(lr, ascended, g~)?
//! ```
//!
//! To perturb each replica along its own gradient, call `ascend` twice: with its gradient for the second pass, then
//! with the average for the step.
//!
//! ```text
//! local = gradient(&model)                      ascended = optim.ascend(model, local)?
//! g~ = average(gradient(ascended.model()))      model = ascended.restore()
//! g = average(local)                            model = optim.descend(lr, optim.ascend(model, g)?, g~)?
//! ```
//!
//! Replicas that start equal and receive the same averages stay equal bit for bit on adapters of one kind.
//! Burn 0.22's collectives support only CUDA; on wgpu, gradients are copied through the host.
//!
//! # Records, and runs of Burn's optimizers
//!
//! [`save`](crate::Wsam::save) and [`load`](crate::Wsam::load), or their in-memory variants, store the state in the
//! format of Burn's own optimizers, with the loss scale and the step counts from which masks and stochastic rounding
//! are derived. With the model's record a run resumes bit for bit, on either route. The file may be deleted after it
//! was loaded. A run of Burn's `Sgd`, `Adam` or `AdamW` can continue with WSAM, and the other way round:
//!
//! ```
//! use burn::optim::{AdamWConfig, GradientsParams};
//! use burn_wsam::{AdamWBaseConfig, WsamConfig};
//! # use burn::nn::{Linear, LinearConfig};
//! # use burn::tensor::{Device, Distribution, Tensor};
//!
//! # fn main() -> Result<(), burn_wsam::WsamError> {
//! # let device = Device::flex().autodiff();
//! # let mut model = LinearConfig::new(4, 1).init(&device);
//! # let x = Tensor::<2>::random([8, 4], Distribution::Default, &device);
//! # let loss = |model: &Linear| model.forward(x.clone()).powi_scalar(2).mean();
//! let mut adamw = AdamWConfig::new().init();
//! let grads = GradientsParams::from_grads(loss(&model).backward(), &model);
//! model = adamw.step(1e-3, model, grads);
//!
//! let mut optim = WsamConfig::adamw(AdamWBaseConfig::new()).init(&device)?;
//! optim.load_record(&model, adamw.to_record())?;
//! (model, _) = optim.step(1e-3, model, loss)?;
//! # let _ = model;
//! # Ok(())
//! # }
//! ```
//!
//! # Costs
//!
//! A step costs two forward and backward passes, and on the fused route little more. During the second pass it keeps
//! `w + e_w` and `g` in addition to the base optimizer's memory, 8 bytes a parameter, or 4 in
//! [lean mode](crate::Wsam::lean_ascend). Batch normalisation advances from the unperturbed pass only. Dropout draws
//! different masks in the two passes, which adds noise to the sharpness;
//! [`mask_seed`](crate::WsamConfig::mask_seed) gives both passes the same masks. If you call `ascend` and `descend`,
//! wait for the device and seed it before each pass instead.
//!
//! # When not to use it
//!
//! - If training time is limited: with the same number of gradients the base optimizer takes twice as many steps.
//!   Compare at equal time before you decide.
//! - If data is plentiful and seen once: training and test loss fall together, and flatter minima help little.
//! - If gradients are not those of one loss, as in most of reinforcement learning: the second gradient must be of
//!   the same loss on the same batch.
