//! Runs resumed from a record equal runs without a stop, bit for bit, in every configuration.

use super::Target;
use super::nets::{Mlp, data, parameters, same, text};
use burn::module::{Module, Param, ParamId};
use burn::nn::{Dropout, DropoutConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{LionConfig, OptimizerRecord};
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, Tensor, activation::relu};
use burn_pack::{Reader, Scalar, Writer};
use burn_wsam::{
    AdamWBaseConfig, BaseConfig, LossScaleConfig, NonFinitePolicy, Perturbation, Rejected,
    SgdBaseConfig, Wsam, WsamConfig, WsamError,
};
use std::path::{Path, PathBuf};

const STEPS: u64 = 8;

#[derive(Module, Debug)]
struct DropoutNet {
    net: Mlp,
    dropout: Dropout,
}

impl DropoutNet {
    fn new(target: &Target) -> Self {
        Self { net: Mlp::new(&target.device), dropout: DropoutConfig::new(0.3).init() }
    }

    fn loss(&self, batch: u64) -> Tensor<1> {
        let x = data([7, 5], batch, &self.net.a.weight.device());
        let hidden = self.dropout.forward(relu(self.net.a.forward(x)));
        self.net.b.forward(hidden).powi_scalar(2).mean()
    }
}

/// How a record is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Storage {
    Record,
    Bytes,
    File,
}

/// How a step is called.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Steps {
    Closure,
    Accumulated(Perturbation),
}

/// A configuration and the call that takes its steps.
pub(crate) struct Case<'a> {
    pub(crate) target: &'a Target,
    pub(crate) config: WsamConfig,
    pub(crate) steps: Steps,
}

impl Case<'_> {
    fn init(&self) -> Result<Wsam, String> {
        if !matches!(self.config.base, BaseConfig::Burn) {
            return self.target.init(&self.config);
        }
        let config = self.config.clone().with_route(self.target.policy);
        config.init_with(LionConfig::new().init(), &self.target.device).map_err(text)
    }

    /// Takes one step. The third step has a NaN in both passes, the sixth in its second pass.
    fn step(&self, optim: &mut Wsam, model: DropoutNet, batch: u64) -> Result<DropoutNet, String> {
        let factor = |pass: u64| match (batch, pass) {
            (2, _) | (5, 1) => f32::NAN,
            _ => 1.0,
        };
        let mut calls = 0;
        let stepped = match self.steps {
            Steps::Closure => optim.step(0.01, model, |model| {
                calls += 1;
                model.loss(batch) * factor(calls - 1)
            }),
            Steps::Accumulated(perturbation) => {
                let each = perturbation == Perturbation::EachMicroBatch;
                optim.step_accumulated(0.01, model, perturbation, &[0, 100], |model, micro| {
                    calls += 1;
                    let pass = if each { (calls - 1) % 2 } else { (calls - 1) / 2 };
                    model.loss(batch + micro) * factor(pass)
                })
            }
        };
        match stepped {
            Ok((model, _)) => Ok(model),
            Err(Rejected { model, error: WsamError::NonFinite { .. } }) => Ok(*model),
            Err(rejected) => Err(text(rejected)),
        }
    }

    /// Runs `steps`. Returns the model, the loss scale of each step and the final number of skipped steps.
    fn run(
        &self,
        optim: &mut Wsam,
        mut model: DropoutNet,
        steps: std::ops::Range<u64>,
        mut between: impl FnMut(u64, &Wsam, &DropoutNet) -> Result<(), String>,
    ) -> Result<(DropoutNet, Vec<f64>, u64), String> {
        let mut scales = Vec::new();
        for batch in steps {
            between(batch, optim, &model)?;
            scales.push(optim.loss_scale());
            model = self.step(optim, model, batch)?;
        }
        scales.push(optim.loss_scale());
        Ok((model, scales, optim.skipped_steps().map_err(text)?))
    }

    pub(crate) fn check(&self, storage: Storage) -> Result<(), String> {
        let what = format!("{:?}, {storage:?}, {}", self.steps, self.config);
        let nothing = |_: u64, _: &Wsam, _: &DropoutNet| Ok(());
        let (whole, scales, skipped) =
            self.run(&mut self.init()?, DropoutNet::new(self.target), 0..STEPS, nothing)?;
        let want = parameters(&whole);

        let folder = Folder::new()?;
        let mut saved = Vec::new();
        let (saving, ..) = self.run(
            &mut self.init()?,
            DropoutNet::new(self.target),
            0..STEPS,
            |at, optim, model| {
                let weights = model.clone().into_record().into_bytes().map_err(text)?;
                let file = folder.0.join(format!("{at}.bpk"));
                let record = match storage {
                    Storage::File => {
                        optim.save(model, &file).map_err(text)?;
                        None
                    }
                    Storage::Bytes => Some(optim.to_bytes(model).map_err(text)?),
                    Storage::Record => {
                        let record = optim.to_record(model).map_err(text)?;
                        Some(record.into_bytes().map_err(text)?)
                    }
                };
                saved.push((weights, record, file));
                Ok(())
            },
        )?;
        same(&format!("{what}: saving changes the run"), &saving, &want)?;

        for (at, (weights, record, file)) in saved.into_iter().enumerate() {
            // Resumes after a whole step, a skipped step, the step after it, and a step with a bad second pass.
            if ![1, 3, 4, 6].contains(&at) {
                continue;
            }
            let fresh = DropoutNet::new(self.target);
            let model = fresh.load_record(ModuleRecord::from_bytes(weights).map_err(text)?);
            let mut optim = self.init()?;
            match (storage, record) {
                (Storage::Record, Some(bytes)) => {
                    let record = OptimizerRecord::from_bytes(bytes).map_err(text)?;
                    optim.load_record(&model, record).map_err(text)?;
                }
                (_, Some(bytes)) => optim.load_bytes(&model, bytes).map_err(text)?,
                (_, None) => optim.load(&model, file).map_err(text)?,
            }
            let steps = at as u64..STEPS;
            let (model, got_scales, got) = self.run(&mut optim, model, steps, nothing)?;
            let what = format!("{what}, from step {at}");
            if got_scales != scales[at..] {
                return Err(format!("{what}: scales {got_scales:?}, expected {:?}", &scales[at..]));
            }
            if got != skipped {
                return Err(format!("{what}: {got} steps skipped, expected {skipped}"));
            }
            same(&what, &model, &want)?;
        }
        Ok(())
    }
}

/// A folder that is removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, String> {
        // The thread id makes the folder unique, because a thread runs one test at a time.
        let own = (std::process::id(), std::thread::current().id());
        let folder = std::env::temp_dir().join(format!("burn-wsam-resume-{own:?}"));
        std::fs::create_dir_all(&folder).map_err(text)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A loss scale whose factors are not powers of two, so that a wrong scale changes the weights' bits.
fn scale() -> LossScaleConfig {
    LossScaleConfig::new().with_initial(4.0).with_growth(3.0).with_backoff(0.3).with_interval(2)
}

fn config(base: BaseConfig) -> WsamConfig {
    WsamConfig::new(base).with_loss_scale(Some(scale())).with_mask_seed(Some(7))
}

/// Resumes loss scale, masks and the number of skipped steps, under every policy and kind of step.
pub(crate) fn whole(target: &Target) -> Result<(), String> {
    use NonFinitePolicy::{BaseStep, Refuse, Skip};
    let adamw = || config(AdamWBaseConfig::new().into());
    let sgd = SgdBaseConfig::new().with_momentum(Some(MomentumConfig::new()));
    let mut cases = Vec::new();
    for policy in [Skip, BaseStep, Refuse] {
        cases.push((adamw().with_non_finite(policy), Steps::Closure));
        cases.push((config(BaseConfig::Burn).with_non_finite(policy), Steps::Closure));
    }
    cases.push((config(sgd.into()).with_max_norm(Some(0.5)), Steps::Closure));
    cases.push((adamw().with_lean(true), Steps::Closure));
    cases.push((adamw().with_decouple(false).with_adaptive(true), Steps::Closure));
    cases.push((adamw().with_loss_scale(Some(LossScaleConfig::fixed(3.0))), Steps::Closure));
    cases.push((adamw().with_loss_scale(None), Steps::Closure));
    for perturbation in [Perturbation::Whole, Perturbation::EachMicroBatch] {
        cases.push((adamw(), Steps::Accumulated(perturbation)));
    }
    for (place, (config, steps)) in cases.into_iter().enumerate() {
        let storage = [Storage::File, Storage::Bytes, Storage::Record][place % 3];
        Case { target, config, steps }.check(storage)?;
    }
    Ok(())
}

/// A model whose parameters have the ids 1 to 4, which the committed records use.
fn with_committed_ids(target: &Target) -> Mlp {
    fn with_id<const D: usize>(id: u64, param: &Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::initialized(ParamId::from(id), param.val())
    }
    let mut model = Mlp::new(&target.device);
    model.a.weight = with_id(1, &model.a.weight);
    model.a.bias = model.a.bias.as_ref().map(|bias| with_id(2, bias));
    model.b.weight = with_id(3, &model.b.weight);
    model.b.bias = model.b.bias.as_ref().map(|bias| with_id(4, bias));
    model
}

fn committed(name: &str) -> PathBuf {
    burn_wsam_support::repository().join("tests/records/0.1").join(name)
}

/// Records written by version 0.1, after three steps of AdamW and of Burn's Lion as the base.
pub(crate) fn version_0_1(target: &Target) -> Result<(), String> {
    let adamw = config(AdamWBaseConfig::new().into());
    let lion = config(BaseConfig::Burn);
    for (name, config) in [("adamw.bpk", adamw), ("lion.bpk", lion)] {
        let case = Case { target, config, steps: Steps::Closure };
        let (mut optim, model) = (case.init()?, with_committed_ids(target));
        optim.load(&model, committed(name)).map_err(text)?;
        let record = Reader::from_file(committed(name)).map_err(text)?;
        let written = optim.to_bytes(&model).map_err(text)?;
        let written = Reader::from_bytes(written).map_err(text)?;
        for tensor in record.tensor_names() {
            let bytes = |reader: &Reader| reader.tensor_data(tensor).map_err(text);
            if bytes(&record)? != bytes(&written)? {
                return Err(format!("{name}: {tensor} changed"));
            }
        }
        for (scalar, value) in record.scalars() {
            if written.scalars().get(scalar) != Some(value) {
                return Err(format!("{name}: {scalar} is lost"));
            }
        }
        if (optim.loss_scale(), optim.skipped_steps().map_err(text)?) != (4.0, 0) {
            return Err(format!("{name}: a loss scale of {}", optim.loss_scale()));
        }
        optim.step(0.01, model, |model| model.loss(3)).map_err(text)?;
    }
    Ok(())
}

/// Invalid values are refused with their field named, and nothing changes.
pub(crate) fn damaged(target: &Target) -> Result<(), String> {
    let case =
        Case { target, config: config(AdamWBaseConfig::new().into()), steps: Steps::Closure };
    let (mut optim, model) = (case.init()?, DropoutNet::new(target));
    let nothing = |_: u64, _: &Wsam, _: &DropoutNet| Ok(());
    let (model, ..) = case.run(&mut optim, model, 0..4, nothing)?;
    let whole = optim.to_bytes(&model).map_err(text)?;
    let copy = |bytes: &Bytes| Bytes::from_bytes_vec(bytes.to_vec());
    let name = |field: &str| format!("wsam.run.{field}");
    for (field, value) in [
        ("steps", Scalar::from(u64::MAX)),
        ("skipped", Scalar::from(-1_i64)),
        ("loss_scale", Scalar::from(f64::NAN)),
        ("loss_scale_good_steps", Scalar::from(true)),
        ("loss_scale_pending", Scalar::from(0_u64)),
    ] {
        let reader = Reader::from_bytes(copy(&whole)).map_err(text)?;
        if !reader.scalars().contains_key(&name(field)) {
            return Err(format!("a record has {:?}", reader.scalars()));
        }
        let scalars = reader.scalars().clone();
        let mut writer = Writer::new(reader.into_tensors().map_err(text)?);
        for (name, scalar) in scalars {
            writer = writer.with_scalar(&name, scalar);
        }
        let bytes = writer.with_scalar(&name(field), value).into_bytes().map_err(text)?;
        match optim.load_bytes(&model, bytes) {
            Err(WsamError::Record { reason }) if reason.contains(&name(field)) => {}
            other => return Err(format!("{field}: {other:?}")),
        }
        if optim.to_bytes(&model).map_err(text)?[..] != whole[..] {
            return Err(format!("{field} changed the optimizer"));
        }
    }
    Ok(())
}

/// A file may be removed, truncated or overwritten after it was loaded.
pub(crate) fn changed_files(target: &Target) -> Result<(), String> {
    let folder = Folder::new()?;
    let nothing = |_: u64, _: &Wsam, _: &DropoutNet| Ok(());
    for base in [AdamWBaseConfig::new().into(), BaseConfig::Burn] {
        let case = Case { target, config: config(base), steps: Steps::Closure };
        let mut optim = case.init()?;
        let (model, ..) = case.run(&mut optim, DropoutNet::new(target), 0..2, nothing)?;
        let file = folder.0.join("record.bpk");
        let other = folder.0.join("other.bpk");
        optim.save(&model, &file).map_err(text)?;
        let bytes = std::fs::read(&file).map_err(text)?;
        let want = parameters(&case.run(&mut optim, model.clone(), 3..5, nothing)?.0);
        // A file of the same length with other values.
        optim.save(&model, &other).map_err(text)?;
        let lengths = [bytes.len() as u64, std::fs::metadata(&other).map_err(text)?.len()];
        if lengths[0] != lengths[1] {
            return Err(format!("records of {lengths:?} bytes"));
        }

        type Change = fn(&Path, &Path) -> std::io::Result<()>;
        let changes: [(&str, Change); 4] = [
            ("removed", |file, _| std::fs::remove_file(file)),
            ("cut in half", |file, _| {
                let file = std::fs::File::options().write(true).open(file)?;
                file.set_len(file.metadata()?.len() / 2)
            }),
            ("emptied", |file, _| std::fs::write(file, [])),
            ("overwritten", |file, other| std::fs::copy(other, file).map(drop)),
        ];
        for (what, change) in changes {
            std::fs::write(&file, &bytes).map_err(text)?;
            let mut resumed = case.init()?;
            resumed.load(&model, &file).map_err(text)?;
            let mut by_record = case.init()?;
            let record = OptimizerRecord::load(&file).map_err(text)?;
            by_record.load_record(&model, record).map_err(text)?;
            change(&file, &other).map_err(text)?;
            for (name, mut optim) in [("load", resumed), ("load_record", by_record)] {
                // Reads every loaded state before a step replaces it.
                let again = optim.to_bytes(&model).map_err(text)?;
                if matches!(case.config.base, BaseConfig::AdamW(_)) && again[..] != bytes[..] {
                    return Err(format!("{name}, {what}: the record changed"));
                }
                let (model, ..) = case.run(&mut optim, model.clone(), 3..5, nothing)?;
                same(&format!("{name}, {what}"), &model, &want)?;
            }
        }
        // As in Burn, the extension may be omitted.
        std::fs::write(&file, &bytes).map_err(text)?;
        case.init()?.load(&model, file.with_extension("")).map_err(text)?;
    }
    Ok(())
}
