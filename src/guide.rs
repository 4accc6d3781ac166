//! From a Burn training loop to WSAM: what changes, how to choose, what to expect.
//!
//! # The loop
//!
//! A loop with a Burn optimizer takes one gradient a step. WSAM takes two, the second one at
//! weights it has perturbed, so it asks for the loss as a closure:
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
//! Look at [`Wsam::route`](crate::Wsam::route) once: it says whether steps run in the kernels, and if
//! not, why and what to do. A refused step is a [`Rejected`](crate::Rejected) that holds the model as
//! it was; `?` keeps the reason alone.
//!
//! If you take gradients in another way, call [`ascend`](crate::Wsam::ascend) and
//! [`descend`](crate::Wsam::descend) in place of [`step`](crate::Wsam::step). The two calls leave two things to
//! you: to scale losses by [`Wsam::loss_scale`](crate::Wsam::loss_scale) and
//! [`Ascended::loss_scale`](crate::Ascended::loss_scale) if a loss scale is configured, and to put running
//! statistics back after a skipped step ([`RunningStatistics`](crate::RunningStatistics)).
//!
//! A configuration in which one option leaves another without effect is refused by
//! [`init`](crate::WsamConfig::init) with [`WsamError::Conflict`](crate::WsamError::Conflict), which names both.
//!
//! # Choosing `rho` and `gamma`
//!
//! `rho` is how far a step looks, `gamma` how much what it sees there counts: `gamma = 0` is the
//! base optimizer, coupled `gamma = 1/2` is SAM, and the authors' defaults are `rho = 0.05` and
//! `gamma = 0.9`, decoupled.
//!
//! Keep the base optimizer, its learning rate and its weight decay as they are tuned, and try:
//!
//! 1. `gamma` in 0.5, 0.8, 0.9, 0.95 at `rho = 0.05`;
//! 2. then `rho` in 0.02, 0.05, 0.1, 0.2 at the best `gamma`. The SAM paper (Foret et al. 2021) sweeps
//!    0.01 to 0.5. [`adaptive`](crate::WsamConfig::adaptive) measures weights by their size and wants a
//!    larger `rho`, 0.5 to 1 in the ASAM paper (Kwon et al. 2021).
//!
//! The update weighs the sharpness by `gamma / (1 - gamma)`: 1 at 0.5, 9 at 0.9, 19 at 0.95. If the
//! loss grows noisy or leaves the range, lower `gamma` before the learning rate.
//! [`StepReport::sharpness`](crate::StepReport::sharpness) tells what the climb found: zero
//! throughout means a `rho` too small to see anything, more than the loss itself one far too large.
//!
//! # Schedules, and WSAM for a part of the training
//!
//! The learning rate is an argument of each step: a number, or what the `step` of Burn's schedulers
//! returns, with its rates by parameter. `rho` and `gamma` are set between steps, from a
//! scheduler if you like. To use WSAM only for the last part of a training, call
//! [`base_step`](crate::Wsam::base_step) before: it takes one pass, costs what the base optimizer costs, and
//! keeps the state that WSAM's steps go on with.
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
//! # Parameters that differ
//!
//! [`GroupConfig`](crate::GroupConfig) gives some parameters, matched as in Burn by path, pattern or id, a
//! factor on the learning rate, a weight decay, `rho`, `gamma`, an adaptive perturbation or none, or a norm
//! of their own. Biases and normalisation layers are often neither decayed nor perturbed; perturbing
//! the normalisation layers alone (Mueller et al. 2023, <https://arxiv.org/abs/2306.04226>) is the group
//! `ParamGroup::all()` with `with_perturbed(false)` and after it a group of these layers with the default. A
//! parameter that is not perturbed costs the ascent only the check of its gradient. On the fused route groups
//! cost no dispatches. A group that matches no parameter is refused.
//!
//! A parameter without a gradient takes no part in a step. Random depth or routed experts leave parameters with
//! a gradient in one of the two passes only: [`missing_gradient`](crate::WsamConfig::missing_gradient) refuses such
//! a step by default; `Hold` leaves these parameters as they are, and `UseFirst` takes the base optimizer's step
//! where the second gradient is missing.
//!
//! ```
//! use burn_wsam::{AdamWBaseConfig, MissingGradientPolicy, WsamConfig};
//!
//! let config = WsamConfig::adamw(AdamWBaseConfig::new())
//!     .with_missing_gradient(MissingGradientPolicy::Hold);
//! # let _ = config;
//! ```
//!
//! # Gradients that are not finite
//!
//! By default a step over a NaN, an infinity or a norm beyond `f32` is skipped: weights, state and running
//! statistics are bit for bit as they were, and the training goes on. [`NonFinitePolicy`](crate::NonFinitePolicy) has the other choices. Ask for
//! [`skipped_steps`](crate::Wsam::skipped_steps) now and then, because it waits for the device: many of them
//! mean a learning rate or a `rho` too large, or a loss that overflows. In half
//! precision small gradients vanish and large ones overflow;
//! [`loss_scale`](crate::WsamConfig::loss_scale) seeks the largest factor that does not overflow. It requires a
//! policy other than `Propagate`. Under `SupervisedTraining` the model's `TrainStep` takes the gradient, and a loss
//! scale is refused.
//!
//! # Half precision
//!
//! A module's parameters may be `f16`, in part or all of them: the step computes in `f32` and keeps its state in
//! it. Two things are lost to rounding. Of the perturbation, what is less than half of a weight's last place:
//! nothing worth mention in `f16` below some million parameters, most of it in `bf16`.
//! [`stochastic_rounding`](crate::WsamConfig::stochastic_rounding) keeps it on average, on the fused route. And of
//! the update the same, as with any optimizer: [`master_weights`](crate::WsamConfig::master_weights) are an `f32`
//! copy that steps read and write. Or keep the module in `f32` and cast to half precision in its forward pass.
//!
#![cfg_attr(feature = "train", doc = include_str!("guide/learner.md"))]
#![cfg_attr(
    not(feature = "train"),
    doc = "# Burn's `SupervisedTraining`\n\nThe feature `train` has a learner and a strategy for it.\n"
)]
//! # Large batches
//!
//! [`step_accumulated`](crate::Wsam::step_accumulated) takes a step over micro-batches. Both passes see
//! the same ones, which a loop around `GradientsAccumulator` must see to by itself.
//! [`Perturbation`](crate::Perturbation) chooses between the step of one large batch and m-sharpness. For
//! micro-batches of several sizes, hand their sizes as weights to
//! [`step_accumulated_weighted`](crate::Wsam::step_accumulated_weighted).
//!
//! # Several models, averages and target networks
//!
//! One optimizer may step several models, also with the phases of their steps interleaved. States belong to
//! parameter ids, and stay until [`retain`](crate::Wsam::retain) or [`forget`](crate::Wsam::forget) drops those of
//! parameters that are gone, or were made again with another shape.
//!
//! A moving average or a target network that is a field of the model has the ids of the network that is trained,
//! and tensors of its own: it is neither perturbed nor stepped. Parameters that are the same leaf of the graph
//! are tied, and perturbed together.
//!
//! # Several devices
//!
//! Where one process drives several devices, a replica is a micro-batch: let the closure of
//! [`step_accumulated`](crate::Wsam::step_accumulated) move the model to the device of its batch, with
//! `model.clone().to_device(&device)`, which gradients follow back, and bring the loss to the optimizer's
//! device. `Perturbation::Whole` perturbs along the average gradient, `EachMicroBatch` each replica along
//! its own, as the authors' code does. Running statistics of such copies are their own.
//!
//! Where each replica has an optimizer (one process for each device), average the gradients between
//! the calls, with whatever moves them. Averaged before the perturbation it is one large batch:
//!
//! ```text
//! g = average(gradient(&model))                 ascended = optim.ascend(model, g)?
//! g~ = average(gradient(ascended.model()))      model = optim.descend(lr, ascended, g~)?
//! ```
//!
//! For a perturbation of each replica's own, climb twice: along its gradient for the second pass, then
//! along the average, which is what the step counts from.
//!
//! ```text
//! local = gradient(&model)                      ascended = optim.ascend(model, local)?
//! g~ = average(gradient(ascended.model()))      model = ascended.restore()
//! g = average(local)                            model = optim.descend(lr, optim.ascend(model, g)?, g~)?
//! ```
//!
//! Replicas that start equal and see the same averages stay equal bit for bit on adapters of one kind.
//! Burn 0.22's collectives are for CUDA; on wgpu, gradients go through the host.
//!
//! # Stopping, resuming, coming from Burn's optimizers
//!
//! [`save`](crate::Wsam::save) and [`load`](crate::Wsam::load), or their forms in memory, keep the
//! state in the form of Burn's own optimizers, with the loss scale and the counts of steps, which masks and
//! stochastic rounding follow from. With the model's record a run goes on bit for bit as if it had never
//! stopped, on either route. The file that was loaded may then be deleted. A run of Burn's `Sgd`, `Adam` or `AdamW` can be
//! taken over, and handed back:
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
//! # What to expect
//!
//! A step costs two passes, forward and backward, and on the fused route little more. Through
//! the second pass it holds `w + e_w` and `g` beside what the base optimizer holds, 8 bytes a parameter;
//! in [lean mode](crate::Wsam::lean_ascend) 4. Batch normalisation advances from the unperturbed pass
//! alone. Dropout draws another mask in each pass, which adds noise to the sharpness;
//! [`mask_seed`](crate::WsamConfig::mask_seed) gives both the same. In a loop of two calls, wait for the
//! device and seed it before each pass.
//!
//! # When not to use it
//!
//! - Where training time is short: with the same number of gradients the base optimizer takes twice
//!   the steps. Compare at equal time before you decide.
//! - Where data is plentiful and seen once: training and test loss fall together, and flatness has little to
//!   add.
//! - With gradients that are not those of the loss, as in most of reinforcement learning: the second
//!   gradient must be of the same loss on the same data.
