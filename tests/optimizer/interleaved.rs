//! One optimizer for two models: under every interleaving of every pair of calls, each model is trained as by an
//! optimizer of its own.

use super::Target;
use super::nets::{Mlp, grads, parameters, same, text};
use burn_wsam::{AdamWBaseConfig, Ascended, LeanAscended, Wsam, WsamConfig};

/// A way to step a model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Step,
    Ordinary,
    Lean,
    /// A lean step whose second phase is not called.
    Abandoned,
    Base,
}

/// A call, and which of its passes gets a NaN.
#[derive(Clone, Copy, Debug)]
struct CallPlan {
    call: Call,
    bad: [bool; 2],
}

impl CallPlan {
    fn phases(self) -> usize {
        match self.call {
            Call::Step | Call::Base => 1,
            Call::Ordinary | Call::Lean | Call::Abandoned => 2,
        }
    }

    fn all() -> Vec<Self> {
        let mut plans = Vec::new();
        for call in [Call::Step, Call::Ordinary, Call::Lean, Call::Abandoned, Call::Base] {
            for bad in [[false, false], [true, false], [false, true]] {
                // These calls have one pass.
                if bad[1] && matches!(call, Call::Base | Call::Abandoned) {
                    continue;
                }
                plans.push(Self { call, bad });
            }
        }
        plans
    }
}

enum Stage {
    Ready(Mlp),
    Ordinary(Ascended<Mlp>),
    Lean(LeanAscended<Mlp>),
    Taken,
}

/// A model and its progress through its calls.
struct Trainee {
    stage: Stage,
    batch: u64,
    /// Phases of the current call that were run.
    phases: usize,
}

impl Trainee {
    fn new(model: &Mlp) -> Self {
        Self { stage: Stage::Ready(model.clone()), batch: 0, phases: 0 }
    }

    /// Runs the next phase of `plan`.
    fn run_phase(&mut self, optim: &mut Wsam, plan: CallPlan) -> Result<(), String> {
        let (batch, lr) = (self.batch, 0.01);
        let factor = |pass: usize| if plan.bad[pass] { f32::NAN } else { 1.0 };
        let loss = |model: &Mlp, pass| model.loss(batch) * factor(pass);
        self.stage = match std::mem::replace(&mut self.stage, Stage::Taken) {
            Stage::Ready(model) => match plan.call {
                Call::Step => {
                    let mut pass = 0..;
                    let stepped =
                        optim.step(lr, model, |model| loss(model, pass.next().unwrap_or(1)));
                    Stage::Ready(stepped.map_err(text)?.0)
                }
                Call::Base => {
                    let first = grads(&loss(&model, 0), &model);
                    Stage::Ready(optim.base_step(lr, model, first).map_err(text)?)
                }
                Call::Ordinary => {
                    let first = grads(&loss(&model, 0), &model);
                    Stage::Ordinary(optim.ascend(model, first).map_err(text)?)
                }
                Call::Lean | Call::Abandoned => {
                    let first = grads(&loss(&model, 0), &model);
                    Stage::Lean(optim.lean_ascend(lr, model, first).map_err(text)?)
                }
            },
            Stage::Ordinary(ascended) => {
                let second = grads(&loss(ascended.model(), 1), ascended.model());
                Stage::Ready(optim.descend(lr, ascended, second).map_err(text)?)
            }
            Stage::Lean(ascended) if plan.call == Call::Abandoned => {
                Stage::Ready(ascended.abandon())
            }
            Stage::Lean(ascended) => {
                let second = grads(&loss(ascended.model(), 1), ascended.model());
                Stage::Ready(optim.lean_descend(ascended, second).map_err(text)?)
            }
            Stage::Taken => return Err("the model was taken".into()),
        };
        self.phases += 1;
        if self.phases == plan.phases() {
            (self.phases, self.batch) = (0, batch + 1);
        }
        Ok(())
    }

    fn model(&self) -> Result<&Mlp, String> {
        match &self.stage {
            Stage::Ready(model) => Ok(model),
            _ => Err("the call is not complete".into()),
        }
    }
}

/// All orders of `a` zeros and `b` ones.
fn orders(a: usize, b: usize) -> Vec<Vec<usize>> {
    match (a, b) {
        (0, b) => vec![vec![1; b]],
        (a, 0) => vec![vec![0; a]],
        (a, b) => {
            let mut all = Vec::new();
            for (next, rest) in [(0, orders(a - 1, b)), (1, orders(a, b - 1))] {
                all.extend(rest.into_iter().map(|rest| [vec![next], rest].concat()));
            }
            all
        }
    }
}

/// Runs `plan` and one ordinary step with an optimizer of its own. Returns the model and the number of skipped
/// steps.
fn alone(
    target: &Target,
    config: &WsamConfig,
    model: &Mlp,
    plan: CallPlan,
) -> Result<(Mlp, u64), String> {
    let mut optim = target.init(config)?;
    let mut trainee = Trainee::new(model);
    for _ in 0..plan.phases() {
        trainee.run_phase(&mut optim, plan)?;
    }
    let after = CallPlan { call: Call::Step, bad: [false; 2] };
    trainee.run_phase(&mut optim, after)?;
    let skipped = optim.skipped_steps().map_err(text)?;
    Ok((trainee.model()?.clone(), skipped))
}

pub(crate) fn pairs(target: &Target) -> Result<(), String> {
    let config = WsamConfig::new(AdamWBaseConfig::new().into());
    let models = [Mlp::new(&target.device), Mlp::new(&target.device)];
    let plans = CallPlan::all();
    let want = |model: &Mlp| -> Result<Vec<_>, String> {
        plans.iter().map(|plan| alone(target, &config, model, *plan)).collect()
    };
    let wants = [want(&models[0])?, want(&models[1])?];
    let after = CallPlan { call: Call::Step, bad: [false; 2] };
    let mut runs = 0;
    for (a, plan_a) in plans.iter().enumerate() {
        for (b, plan_b) in plans.iter().enumerate() {
            for order in orders(plan_a.phases(), plan_b.phases()) {
                runs += 1;
                let mut optim = target.init(&config)?;
                let mut trainees = [Trainee::new(&models[0]), Trainee::new(&models[1])];
                for which in &order {
                    trainees[*which].run_phase(&mut optim, [*plan_a, *plan_b][*which])?;
                }
                for trainee in &mut trainees {
                    trainee.run_phase(&mut optim, after)?;
                }
                let what = format!("{plan_a:?} and {plan_b:?} in the order {order:?}");
                let pairs = [&wants[0][a], &wants[1][b]];
                for (trainee, (want, _)) in trainees.iter().zip(pairs) {
                    same(&what, trainee.model()?, &parameters(want))?;
                }
                let skipped = optim.skipped_steps().map_err(text)?;
                let expected = pairs[0].1 + pairs[1].1;
                if skipped != expected {
                    return Err(format!("{what}: {skipped} skipped steps, expected {expected}"));
                }
            }
        }
    }
    if runs < 300 { Err(format!("only {runs} interleavings")) } else { Ok(()) }
}
