//! Tests of the Burn optimizer: tensor operations on the CPU, and both routes on every adapter.

mod accumulation;
mod bits;
mod burn_base;
mod combinations;
mod family;
mod groups;
mod half_precision;
mod in_place;
mod interleaved;
mod limits;
mod masks;
mod missing;
mod misuse;
mod modules;
mod non_finite;
mod oracle;
mod overflows;
mod pairwise;
mod quantised;
mod records;
mod replicas;
mod reports;
mod resume;
mod shared_ids;
mod sharpness;
mod statistics;

use burn::tensor::DType;
use burn_wsam_support::nets;
use burn_wsam_support::target::{self, Target, Test};
use libtest_mimic::Trial;

const TESTS: &[(&str, Test)] = &[
    ("gamma 0 is Burn's Sgd", limits::sgd),
    ("gamma 0 is Burn's Adam", limits::adam),
    ("gamma 0 is Burn's AdamW", limits::adamw),
    ("coupled gamma 1/2 is SAM", limits::sam),
    ("rho 0 is the base optimizer", limits::rho_zero),
    ("base step", limits::base_alone),
    ("step equals ascend and descend", bits::closure_and_calls),
    ("steps are bit-reproducible", bits::repeats),
    ("rho and gamma set between steps", bits::schedules),
    ("methods that are SAM", family::limits::sam_limits),
    ("rho 0 is the base optimizer under every method", family::limits::rho_zero),
    ("interval 1 is WSAM", family::limits::interval_one),
    ("intervals and a late start", family::limits::intervals),
    ("AE-SAM's rule", family::schedules::ae_sam),
    ("closure and calls under every method and rule", family::schedules::closure_and_calls),
    ("micro-batches under every method and rule", family::schedules::micro_batches),
    ("a perturbation for each micro-batch", family::schedules::each_micro_batch),
    ("running statistics under every method and rule", family::schedules::running_statistics),
    ("a loss scale under every method and rule", family::schedules::loss_scale),
    ("Momentum-SAM returns the model at w", family::schedules::returns_unperturbed),
    ("every method and base match the oracle", family::oracle::every_base),
    ("every method in groups matches the oracle", family::oracle::groups),
    ("every method over non-finite gradients matches the oracle", family::oracle::non_finite),
    ("resume is bit-exact under every method and rule", family::resume::whole),
    ("records of other methods", family::resume::other_methods),
    ("damaged schedules in records", family::resume::damaged),
    ("calls that the next step does not take", family::misuse::calls),
    ("gradients in only one pass under every method", family::misuse::missing),
    ("a Burn optimizer as the base of every method", family::burn_base::as_built_in),
    ("restore is exact", bits::restores),
    ("clones keep their weights", bits::clones_keep),
    ("zero gradients leave the weights unchanged", bits::zero_gradients),
    ("steps in place equal others", in_place::loops),
    ("steps in place with running statistics", in_place::statistics),
    ("steps in place while tensors are kept", in_place::first_pass),
    ("steps in place while tensors of the perturbed model are kept", in_place::second_pass),
    ("refused and abandoned steps in place", in_place::refusals),
    ("steps in place with failing closures", in_place::failing_closures),
    ("dropped ascents and panics in place", in_place::dropped),
    ("running statistics advance once a step", modules::batch_norm),
    ("frozen parameters are not updated", modules::frozen),
    ("parameters without a gradient are not updated", modules::without_gradient),
    ("tied parameters match Burn", modules::tied),
    ("empty parameters", modules::empty_parameters),
    ("a model with only empty parameters", modules::only_empty_parameters),
    ("broadcast and transposed gradients", modules::strided_gradients),
    ("gradient checkpointing", modules::checkpointing),
    ("all kinds of parameters match the oracle", oracle::all_kinds),
    ("parameter groups match the oracle", groups::oracle),
    ("learning rates by parameter match Burn", groups::rates),
    ("invalid groups and learning rates", groups::misuse),
    ("Burn's SGD and AdamW as the base match the built-in ones", burn_base::as_built_in),
    ("other Burn optimizers as the base", burn_base::others),
    ("records with a Burn optimizer as the base", burn_base::records),
    ("options refused with a Burn optimizer as the base", burn_base::misuse),
    ("micro-batches with one perturbation", accumulation::one_perturbation),
    ("micro-batches with a perturbation each", accumulation::each_perturbed),
    ("refused micro-batches", accumulation::refused),
    ("weighted micro-batches", accumulation::weighted),
    ("unreduced losses", accumulation::unreduced),
    ("a power-of-two loss scale is bit-exact", combinations::loss_scale_is_bit_exact),
    ("a target network with the online network's ids", shared_ids::target_network),
    ("tied clones inside a module", shared_ids::clones),
    ("sharpness measures of a model with a target network", shared_ids::measures),
    ("running statistics after skipped steps", statistics::skipped),
    ("finite running statistics after skipped steps", statistics::finite_statistics),
    ("submodules in evaluation mode", statistics::modes),
    ("gradients in only one pass", missing::policies),
    ("states of removed parameters", missing::removed),
    ("the same dropout masks in both passes", masks::dropout),
    ("non-finite gradients skip the step", non_finite::skips),
    ("a non-finite g~ falls back to the base step", non_finite::falls_back),
    ("non-finite gradients are refused", non_finite::refuses),
    ("non-finite gradients in lean mode", non_finite::lean),
    ("non-finite gradients propagate", non_finite::propagates),
    ("a gradient norm that overflows f32", overflows::norms),
    ("rounding of the coupled blend", overflows::difference),
    ("loss scaling", non_finite::scales),
    ("replicas with one optimizer each", replicas::own_optimizers),
    ("resume is bit-exact", records::resume),
    ("records in files and across routes", records::files_and_routes),
    ("records exchanged with Burn's optimizers", records::takeover),
    ("resume is bit-exact in every configuration", resume::whole),
    ("records of version 0.1", resume::version_0_1),
    ("damaged run state in a record", resume::damaged),
    ("a record's file changes after loading", resume::changed_files),
    ("mismatched records", records::mismatched),
    ("partial records", records::partial),
    ("a report matches the losses", reports::report),
    ("norms in a report", reports::norms),
    ("training reduces the loss", reports::loss_falls),
    ("invalid gradients", misuse::gradients),
    ("invalid learning rates", misuse::learning_rates),
    ("a loss without autodiff", misuse::no_autodiff),
    ("an ascent of another optimizer", misuse::foreign_ascent),
    ("a model on another device", misuse::another_device),
    ("quantised parameters in steps", quantised::steps),
    ("quantised parameters in records", quantised::records),
    ("quantised parameters in sharpness measures", quantised::measures),
    ("loss rise on a quadratic", sharpness::rise),
    ("eigenvalues of a known Hessian", sharpness::eigenvalues),
    ("sharpness of tied and frozen parameters", sharpness::tied_and_frozen),
    ("measuring leaves the model unchanged", sharpness::changes_nothing),
    ("loss surface with filter normalisation", sharpness::surface),
    ("invalid sharpness options", sharpness::refused),
];

/// Tests of the host's part of a step. They run in tensor operations on the CPU, and fused on every adapter.
const HOST: &[(&str, Test)] = &[
    ("interleaved steps of two models", interleaved::pairs),
    ("every pair of options", pairwise::pairs),
    ("conflicting pairs of options", pairwise::refused),
];

/// Tests that need Burn's f16 on the device.
const HALF_PRECISION: &[(&str, Test)] = &[
    ("a mismatched element type", misuse::element_types),
    ("half precision matches the oracle", half_precision::oracle),
    ("half precision training reduces the loss", half_precision::trains),
    ("half precision in lean mode", half_precision::lean),
    ("half precision with a Burn optimizer as the base", half_precision::burn_base),
    ("half precision resume is bit-exact", half_precision::resume),
    ("half precision under every method matches the oracle", family::half_precision::oracle),
    ("half precision resume under every method", family::half_precision::resume),
    ("master weights match the oracle", half_precision::master_weights),
    ("master weights after a skipped step", half_precision::master_weights_after_skip),
    ("stochastic rounding", half_precision::stochastic_rounding),
    ("stochastic rounding differs by step", combinations::rounding_differs_by_step),
    #[cfg(feature = "fused-wsam")]
    ("a half-precision state above the allocation limit", half_precision::too_large),
];

/// Trials of [`HALF_PRECISION`], ignored where the device has no f16.
fn half_precision_trials(target: &Target, label: &str) -> Vec<Trial> {
    let has_f16 = target.device.clone().inner().supports_dtype(DType::F16);
    let trials = target::on(HALF_PRECISION, target, label).into_iter();
    trials.map(|trial| trial.with_ignored_flag(!has_f16)).collect()
}

/// Not run in tensor operations on wgpu: there Burn 0.22.1 with fusion confuses tensors that move between
/// threads, and Burn's own AdamW fails the same test.
const THREADS: &[(&str, Test)] = &[
    ("steps on different threads", bits::threads),
    ("steps in place while other threads keep tensors", in_place::elsewhere),
    ("steps in place with a validation thread", in_place::validation),
];

fn main() {
    let mut trials = vec![
        Trial::test("serialised configurations", || Ok(misuse::serialisation()?)),
        Trial::test("invalid configurations", || Ok(misuse::configurations()?)),
        Trial::test("conflicting options", || Ok(combinations::conflicts()?)),
        Trial::test("invalid methods and rules", || Ok(family::misuse::configurations()?)),
        Trial::test("serialised methods and rules", || Ok(family::misuse::serialisation()?)),
        Trial::test("a route reports its reason", || Ok(misuse::routes()?)),
        Trial::test("invalid loss scales", || Ok(non_finite::misuse()?)),
    ];
    let flex = target::flex();
    trials.extend(target::on(TESTS, &flex, "flex"));
    trials.extend(half_precision_trials(&flex, "flex"));
    trials.extend(target::on(
        &[("the eigenvalue of a dense Hessian in f64", sharpness::dense)],
        &flex,
        "flex",
    ));
    trials.extend(target::on(THREADS, &flex, "flex"));
    trials.extend(target::on(HOST, &flex, "flex"));
    #[cfg(feature = "fused-wsam")]
    trials.extend(on_adapters());
    burn_wsam_support::gpu::run(trials);
}

#[cfg(feature = "fused-wsam")]
fn on_adapters() -> Vec<Trial> {
    use burn_wsam::RoutePolicy;
    let mut devices = Vec::new();
    let mut trials = target::on_adapters(TESTS, "the optimizer on the GPU", |gpu, device| {
        devices.push((device.clone(), gpu.name.clone()));
        let fused = Target { device: device.clone(), policy: RoutePolicy::Fused };
        let label = format!("fused, {}", gpu.name);
        let mut trials = target::on(THREADS, &fused, &label);
        trials.extend(target::on(HOST, &fused, &label));
        trials.extend(half_precision_trials(&fused, &label));
        let ops = Target { policy: RoutePolicy::TensorOps, ..fused.clone() };
        trials.extend(half_precision_trials(&ops, &format!("tensor operations, {}", gpu.name)));
        let counted: &[(&str, Test)] = &[("groups add no dispatches", groups::dispatches)];
        trials.extend(target::on(counted, &fused, &label));
        let agree = move || Ok(limits::routes_agree(&fused.device)?);
        trials.push(Trial::test(format!("the two routes agree [{}]", gpu.name), agree));
        trials
    });
    // Pairs of adapters, and an adapter with the CPU.
    devices.push((target::flex().device, "flex".to_owned()));
    for pair in devices.windows(2) {
        let [(device, name), (other, other_name)] = pair else { continue };
        for (policy, label) in target::ROUTES {
            let target = Target { device: device.clone(), policy };
            let other = other.clone();
            let name = format!("replicas on two devices [{label}, {name} and {other_name}]");
            trials.push(Trial::test(name, move || Ok(replicas::two_devices(&target, &other)?)));
        }
    }
    trials
}
