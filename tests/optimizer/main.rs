//! The Burn optimizer: on the CPU in tensor operations, and on every adapter by both routes.

mod accumulation;
mod bits;
mod combinations;
mod external;
mod groups;
mod half_precision;
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
use burn_wsam_support as common;
use burn_wsam_support::nets;
use common::target::{self, Target, Test};
use libtest_mimic::Trial;

const TESTS: &[(&str, Test)] = &[
    ("gamma 0 is Burn's Sgd", limits::sgd),
    ("gamma 0 is Burn's Adam", limits::adam),
    ("gamma 0 is Burn's AdamW", limits::adamw),
    ("coupled gamma 1/2 is SAM", limits::sam),
    ("rho 0 is the base optimizer", limits::rho_zero),
    ("base steps alone", limits::base_alone),
    ("the closure and the two calls agree", bits::closure_and_calls),
    ("a step repeats bit for bit", bits::repeats),
    ("rho and gamma on a schedule", bits::schedules),
    ("restore is exact", bits::restores),
    ("a clone never changes", bits::clones_keep),
    ("zero gradients move nothing", bits::zero_gradients),
    ("running statistics advance once", modules::batch_norm),
    ("frozen parameters stay", modules::frozen),
    ("parameters without a gradient stay", modules::without_gradient),
    ("tied parameters do as in Burn", modules::tied),
    ("parameters without elements", modules::empty_parameters),
    ("nothing but parameters without elements", modules::only_empty_parameters),
    ("broadcast and transposed gradients", modules::odd_gradients),
    ("gradient checkpointing", modules::checkpointing),
    ("everything a module can hold, beside the oracle", oracle::zoo),
    ("groups beside the oracle", groups::oracle),
    ("learning rates by parameter do as in Burn", groups::rates),
    ("refused groups and rates", groups::misuse),
    ("Burn's optimizers as the base", external::as_built_in),
    ("any optimizer as the base", external::any),
    ("records around Burn's optimizers", external::records),
    ("refused around Burn's optimizers", external::misuse),
    ("micro-batches, perturbed once", accumulation::whole),
    ("micro-batches, each perturbed", accumulation::each),
    ("micro-batches refused", accumulation::refused),
    ("micro-batches of several sizes", accumulation::weighted),
    ("unreduced losses", accumulation::unreduced),
    ("a loss scale of powers of two changes no bit", combinations::loss_scale_changes_no_bit),
    ("a target network beside the online one", shared_ids::target_network),
    ("clones inside a module", shared_ids::clones),
    ("measures beside a target network", shared_ids::measures),
    ("running statistics after skipped steps", statistics::skipped),
    ("finite running statistics after skipped steps", statistics::finite_statistics),
    ("submodules in evaluation mode", statistics::modes),
    ("gradients in one pass alone", missing::policies),
    ("states of parameters that are gone", missing::forgotten),
    ("the same masks in both passes", masks::dropout),
    ("steps that are left out", non_finite::skips),
    ("steps that fall back", non_finite::falls_back),
    ("steps that are refused", non_finite::refuses),
    ("steps that are left out, lean", non_finite::lean),
    ("a NaN that propagates", non_finite::propagates),
    ("a norm beyond f32", overflows::norms),
    ("a blend by its difference", overflows::difference),
    ("scaled losses", non_finite::scales),
    ("replicas with optimizers of their own", replicas::own_optimizers),
    ("a run resumes bit for bit", records::resume),
    ("records in files and on both routes", records::files_and_routes),
    ("records of Burn's own optimizers", records::takeover),
    ("every configuration resumes bit for bit", resume::whole),
    ("records of version 0.1", resume::version_0_1),
    ("damaged values of a run", resume::damaged),
    ("a record's file may go", resume::files_that_go),
    ("records that do not fit", records::misfits),
    ("records of a part", records::partly),
    ("a report tells the truth", reports::report),
    ("norms are there on demand", reports::norms),
    ("a loss falls", reports::loss_falls),
    ("refused gradients", misuse::gradients),
    ("refused learning rates", misuse::learning_rates),
    ("a loss off the graph", misuse::no_autodiff),
    ("a foreign ascent", misuse::foreign_ascent),
    ("another device", misuse::another_device),
    ("quantised parameters pass through steps", quantised::steps),
    ("quantised parameters pass through records", quantised::records),
    ("quantised parameters pass through measures", quantised::measures),
    ("the loss's rise on a quadratic", sharpness::rise),
    ("eigenvalues of a known Hessian", sharpness::eigenvalues),
    ("sharpness of tied and frozen parameters", sharpness::tied_and_frozen),
    ("measuring changes nothing", sharpness::changes_nothing),
    ("a surface is normalised by filters", sharpness::surface),
    ("refused measures", sharpness::refused),
];

/// What concerns the host's part of a step: in tensor operations on the CPU, and fused.
const HOST: &[(&str, Test)] = &[
    ("interleaved steps of two models", interleaved::pairs),
    ("every pair of options", pairwise::pairs),
    ("pairs of options that are refused", pairwise::refused),
];

/// Where Burn has f16.
const HALVES: &[(&str, Test)] = &[
    ("another element type", misuse::element_types),
    ("half precision beside the oracle", half_precision::oracle),
    ("half precision, a loss falls", half_precision::trains),
    ("half precision in lean mode", half_precision::lean),
    ("half precision around Burn's optimizers", half_precision::external),
    ("half precision resumes bit for bit", half_precision::resume),
    ("half precision with master weights", half_precision::master_weights),
    ("master weights stay", half_precision::master_weights_stay),
    ("half precision by chance", half_precision::by_chance),
    ("stochastic rounding differs by step", combinations::rounding_differs_by_step),
    #[cfg(feature = "fused-wsam")]
    ("half precision whose state is too large", half_precision::too_large),
];

/// [`HALVES`], ignored where Burn has no f16.
fn halves(target: &Target, label: &str) -> Vec<Trial> {
    let has_f16 = target.device.clone().inner().supports_dtype(DType::F16);
    let trials = target::on(HALVES, target, label).into_iter();
    trials.map(|trial| trial.with_ignored_flag(!has_f16)).collect()
}

/// Not in tensor operations on wgpu: there Burn 0.22.1 itself mixes up tensors that change threads
/// under its fusion, and Burn's own AdamW fails the same test.
const TRAVEL: &[(&str, Test)] = &[("any thread may step", bits::threads)];

fn main() {
    let mut trials = vec![
        Trial::test("configuration survives serialisation", || Ok(misuse::serialisation()?)),
        Trial::test("refused configurations", || Ok(misuse::configurations()?)),
        Trial::test("options that contradict each other", || Ok(combinations::conflicts()?)),
        Trial::test("routes say why", || Ok(misuse::routes()?)),
        Trial::test("refused loss scales", || Ok(non_finite::misuse()?)),
    ];
    let flex = target::flex();
    trials.extend(target::on(TESTS, &flex, "flex"));
    trials.extend(halves(&flex, "flex"));
    trials.extend(target::on(&[("a dense Hessian in f64", sharpness::dense)], &flex, "flex"));
    trials.extend(target::on(TRAVEL, &flex, "flex"));
    trials.extend(target::on(HOST, &flex, "flex"));
    #[cfg(feature = "fused-wsam")]
    trials.extend(on_adapters());
    common::gpu::run(trials);
}

#[cfg(feature = "fused-wsam")]
fn on_adapters() -> Vec<Trial> {
    use burn_wsam::RoutePolicy;
    let mut devices = Vec::new();
    let mut trials = target::on_adapters(TESTS, "the optimizer on the GPU", |gpu, device| {
        devices.push((device.clone(), gpu.name.clone()));
        let fused = Target { device: device.clone(), policy: RoutePolicy::Fused };
        let label = format!("fused, {}", gpu.name);
        let mut trials = target::on(TRAVEL, &fused, &label);
        trials.extend(target::on(HOST, &fused, &label));
        trials.extend(halves(&fused, &label));
        let ops = Target { policy: RoutePolicy::TensorOps, ..fused.clone() };
        trials.extend(halves(&ops, &format!("tensor operations, {}", gpu.name)));
        let counted: &[(&str, Test)] = &[("groups cost no dispatches", groups::dispatches)];
        trials.extend(target::on(counted, &fused, &label));
        let agree = move || Ok(limits::routes_agree(&fused.device)?);
        trials.push(Trial::test(format!("the routes agree [{}]", gpu.name), agree));
        trials
    });
    // Two adapters, or one and the CPU.
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
