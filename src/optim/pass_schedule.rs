//! Which steps take one gradient and which take two: the start of the method, its cycle and the pass rule.

use crate::method::{AeSam, Method, Outcome, PassRule, Passes};
use std::fmt;

/// The calls that the next step consists of, from [`Wsam::next_step`](crate::Wsam::next_step).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextStep {
    /// [`ascend`](crate::Wsam::ascend) with the gradient at the weights, then [`descend`](crate::Wsam::descend) with
    /// the one at the perturbed weights.
    TwoPasses,
    /// [`one_pass_step`](crate::Wsam::one_pass_step) with the gradient at the weights.
    OnePass,
    /// [`ascend_along_momentum`](crate::Wsam::ascend_along_momentum) without a gradient, then
    /// [`descend`](crate::Wsam::descend) with the only gradient of the step, the one at the perturbed weights.
    AlongMomentum,
}

impl fmt::Display for NextStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoPasses => "TwoPasses",
            Self::OnePass => "OnePass",
            Self::AlongMomentum => "AlongMomentum",
        })
    }
}

/// How a step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepKind {
    /// By the method, with two gradients.
    TwoPasses,
    /// By the method, with one gradient at the weights: LookSAM between its SAM steps.
    OnePass,
    /// By Momentum-SAM.
    AlongMomentum,
    /// By the base optimizer alone.
    Base,
}

impl StepKind {
    pub(crate) fn next_step(self) -> NextStep {
        match self {
            Self::TwoPasses => NextStep::TwoPasses,
            Self::OnePass | Self::Base => NextStep::OnePass,
            Self::AlongMomentum => NextStep::AlongMomentum,
        }
    }
}

/// State of a schedule between two steps, for records.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PassState {
    /// Place in the method's cycle.
    pub(super) place: u32,
    /// AE-SAM's `mean` and `variance`, and `||g||` of the last step if it is known.
    pub(super) averages: Option<([f64; 2], Option<f64>)>,
}

/// The schedule of an optimizer's passes.
#[derive(Clone, Debug)]
pub(crate) struct PassSchedule {
    rule: PassRule,
    /// Number of steps that the base optimizer takes alone before the method starts.
    start_step: u64,
    /// Place of the next step in the method's cycle.
    place: u32,
    /// The place before the last submitted step, to which a step that was not taken whole returns.
    previous_place: u32,
    /// `||g||` of the last step, which is not part of the rule's averages yet.
    last_norm: Option<f64>,
}

impl PassSchedule {
    pub(super) fn new(rule: PassRule, start_step: u64) -> Self {
        Self { rule, start_step, place: 0, previous_place: 0, last_norm: None }
    }

    /// Whether the rule reads `||g||` of each step.
    pub(super) fn reads_norm(&self) -> bool {
        self.rule.reads_norm()
    }

    /// Whether steps differ by the count of steps or by norms.
    pub(super) fn varies(&self) -> bool {
        self.start_step > 0 || self.rule != PassRule::EveryStep
    }

    /// How the step after `steps` steps is taken. Call it after pending outcomes were resolved.
    pub(super) fn next(&self, method: &Method, steps: u64) -> StepKind {
        let Some(step) = steps.checked_sub(self.start_step) else { return StepKind::Base };
        match method {
            Method::MomentumSam => StepKind::AlongMomentum,
            Method::LookSam { .. } => match method.passes(self.place) {
                Passes::One => StepKind::OnePass,
                Passes::Two => StepKind::TwoPasses,
            },
            _ => match self.decide(step) {
                Passes::One => StepKind::Base,
                Passes::Two => StepKind::TwoPasses,
            },
        }
    }

    fn decide(&self, step: u64) -> Passes {
        // A copy: the averages change only when the step is submitted.
        let mut rule = self.rule;
        match (rule.reads_norm(), self.last_norm) {
            (true, None) => Passes::Two,
            (_, norm) => rule.decide(step, norm.unwrap_or(0.0)),
        }
    }

    /// Advances after a step of this kind was submitted, the one after `steps` steps.
    pub(super) fn advance(&mut self, method: &Method, steps: u64, kind: StepKind) {
        if let (PassRule::AeSam(rule), Some(norm)) = (&mut self.rule, self.last_norm.take()) {
            let _ = rule.decide(steps.saturating_sub(self.start_step), norm);
        }
        self.previous_place = self.place;
        if kind != StepKind::Base {
            self.place = method.next_place(self.place);
        }
    }

    /// Applies the outcome of the last submitted step. `norm` is its `||g||`, if the step computed it.
    pub(super) fn resolve(&mut self, outcome: Outcome, norm: Option<f64>) {
        if outcome != Outcome::Whole {
            self.place = self.previous_place;
        }
        self.previous_place = self.place;
        if self.reads_norm() {
            self.last_norm = norm.filter(|norm| norm.is_finite());
        }
    }

    /// The state for a record. Call it on a copy to which pending outcomes were applied.
    pub(super) fn state(&self) -> PassState {
        let averages = match self.rule {
            PassRule::AeSam(AeSam { mean, variance, .. }) => {
                Some(([mean, variance], self.last_norm))
            }
            _ => None,
        };
        PassState { place: self.place, averages }
    }

    /// Continues from a record's state. Averages of a rule that is not configured are ignored, and a place beyond
    /// the method's cycle starts it again.
    pub(super) fn resume(&mut self, method: &Method, state: PassState) {
        self.place = if state.place < method.cycle() { state.place } else { 0 };
        self.previous_place = self.place;
        self.last_norm = None;
        if let (PassRule::AeSam(rule), Some(([mean, variance], norm))) =
            (&mut self.rule, state.averages)
        {
            (rule.mean, rule.variance, self.last_norm) = (mean, variance, norm);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Interval;

    #[test]
    fn the_base_optimizer_steps_alone_until_the_start() {
        let rule = PassRule::Interval(Interval { every: 2 });
        let schedule = PassSchedule::new(rule, 3);
        let kinds: Vec<_> = (0..7).map(|steps| schedule.next(&Method::Wsam, steps)).collect();
        let (base, two) = (StepKind::Base, StepKind::TwoPasses);
        assert_eq!(kinds, [base, base, base, two, base, two, base]);
        let along = PassSchedule::new(PassRule::EveryStep, 1);
        assert_eq!(along.next(&Method::MomentumSam, 0), base);
        assert_eq!(along.next(&Method::MomentumSam, 1), StepKind::AlongMomentum);
    }

    #[test]
    fn a_step_that_was_not_taken_whole_keeps_the_place() {
        let method = Method::LookSam { alpha: 0.7, k: 3 };
        let mut schedule = PassSchedule::new(PassRule::EveryStep, 0);
        let mut kinds = Vec::new();
        let outcomes = [Outcome::Base, Outcome::Whole, Outcome::Skipped, Outcome::Whole];
        for (step, outcome) in outcomes.into_iter().chain([Outcome::Whole; 3]).enumerate() {
            let kind = schedule.next(&method, step as u64);
            kinds.push(kind);
            schedule.advance(&method, step as u64, kind);
            schedule.resolve(outcome, None);
        }
        let (two, one) = (StepKind::TwoPasses, StepKind::OnePass);
        assert_eq!(kinds, [two, two, one, one, one, two, one]);
    }

    /// Decides each step by the norm of the step before it.
    #[test]
    fn ae_sam_is_one_step_late() {
        let rule = AeSam { last_threshold: 1.0, ..AeSam::new(100) };
        let mut schedule = PassSchedule::new(PassRule::AeSam(rule), 0);
        let norms = [1.0, 0.5, 3.0, 0.1, f64::NAN, 2.0, 1.0];
        let mut kinds = Vec::new();
        for (step, norm) in norms.iter().enumerate() {
            // Asking twice changes nothing.
            let kind = schedule.next(&Method::Wsam, step as u64);
            assert_eq!(schedule.next(&Method::Wsam, step as u64), kind);
            kinds.push(if kind == StepKind::Base { Passes::One } else { Passes::Two });
            schedule.advance(&Method::Wsam, step as u64, kind);
            schedule.resolve(Outcome::Whole, Some(*norm));
        }
        let mut rule = rule;
        let mut want = vec![Passes::Two];
        for (step, norm) in norms[..6].iter().enumerate() {
            want.push(match norm.is_nan() {
                true => Passes::Two,
                false => rule.decide(step as u64 + 1, *norm),
            });
        }
        assert_eq!(kinds, want);
        assert!(kinds.contains(&Passes::One));
    }

    #[test]
    fn a_resumed_schedule_continues() {
        let rule = PassRule::AeSam(AeSam::new(10));
        let mut schedule = PassSchedule::new(rule, 0);
        for step in 0..4 {
            schedule.advance(&Method::Wsam, step, StepKind::TwoPasses);
            schedule.resolve(Outcome::Whole, Some(1.0 + step as f64));
        }
        let mut resumed = PassSchedule::new(rule, 0);
        resumed.resume(&Method::Wsam, schedule.state());
        assert_eq!(resumed.state(), schedule.state());
        assert!(
            schedule
                .state()
                .averages
                .is_some_and(|([mean, _], norm)| { mean > 0.0 && norm == Some(4.0) })
        );
    }
}
