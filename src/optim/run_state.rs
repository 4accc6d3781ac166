//! State of an optimizer that belongs to no parameter, and its format in records.

use super::error::WsamError;
use super::loss_scale::ScaleState;
use super::pass_schedule::PassState;
use burn_pack::Scalar;

/// Names of all values in a record. Parameter ids are numbers, so the prefix `wsam` distinguishes these names
/// from those of parameters, and Burn's optimizers ignore them. In a learner's checkpoint a parameter's id
/// precedes them.
#[cfg(feature = "train")]
pub(super) const FIELDS: [&str; 9] =
    [STEPS, SKIPPED, SCALE, GOOD_STEPS, PENDING, PLACE, MEAN, VARIANCE, LAST_NORM];

const STEPS: &str = "wsam.run.steps";
const SKIPPED: &str = "wsam.run.skipped";
const SCALE: &str = "wsam.run.loss_scale";
const GOOD_STEPS: &str = "wsam.run.loss_scale_good_steps";
const PENDING: &str = "wsam.run.loss_scale_pending";
const PLACE: &str = "wsam.run.cycle_place";
const MEAN: &str = "wsam.run.ae_sam_mean";
const VARIANCE: &str = "wsam.run.ae_sam_variance";
const LAST_NORM: &str = "wsam.run.ae_sam_last_norm";

/// Largest valid step count: larger than that of any training, and far from overflow.
pub(super) const MOST_STEPS: u64 = 1 << 53;
/// Most outcomes in [`PENDING`], whose highest set bit marks the end.
const MOST_PENDING: usize = 63;

/// State of an optimizer that belongs to no parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RunState {
    /// Steps taken, over all models. It seeds the random numbers of a step.
    pub(super) steps: u64,
    /// Steps skipped.
    pub(super) skipped: u64,
    /// State of the loss scale, if losses are scaled.
    pub(super) loss_scale: Option<ScaleState>,
    /// State of the passes' schedule.
    pub(super) passes: PassState,
}

impl RunState {
    /// Values with their names in a record.
    pub(super) fn scalars(&self) -> Result<Vec<(&'static str, Scalar)>, WsamError> {
        let mut scalars =
            vec![(STEPS, Scalar::from(self.steps)), (SKIPPED, Scalar::from(self.skipped))];
        if let Some(ScaleState { scale, good_steps, pending }) = &self.loss_scale {
            if pending.len() > MOST_PENDING {
                let len = pending.len();
                return Err(wrong(PENDING, format!("{len} outcomes, more than {MOST_PENDING}")));
            }
            let bits = pending.iter().fold(1, |bits: u64, whole| bits << 1 | u64::from(*whole));
            scalars.push((SCALE, Scalar::from(*scale)));
            scalars.push((GOOD_STEPS, Scalar::from(*good_steps as u64)));
            scalars.push((PENDING, Scalar::from(bits)));
        }
        let PassState { place, averages } = self.passes;
        // A place of 0 is that of a record without one.
        if place > 0 {
            scalars.push((PLACE, Scalar::from(u64::from(place))));
        }
        if let Some(([mean, variance], last_norm)) = averages {
            scalars.extend([(MEAN, Scalar::from(mean)), (VARIANCE, Scalar::from(variance))]);
            scalars.extend(last_norm.map(|norm| (LAST_NORM, Scalar::from(norm))));
        }
        Ok(scalars)
    }

    /// Reads the state from a record; `None` if the record does not have it, as those of version 0.1 and of
    /// Burn's optimizers.
    pub(super) fn from_scalars(
        find: impl Fn(&str) -> Option<Scalar>,
    ) -> Result<Option<Self>, WsamError> {
        if find(STEPS).is_none() {
            return Ok(None);
        }
        let count = |name: &'static str| {
            let found = find(name).and_then(|scalar| u64::try_from(scalar).ok());
            let found = found.filter(|count| *count <= MOST_STEPS);
            found.ok_or_else(|| wrong(name, "no count in 0..=2^53".to_owned()))
        };
        let loss_scale = match find(SCALE) {
            None => None,
            Some(scale) => {
                let scale = f64::try_from(scale).ok().filter(|scale| scale.is_finite());
                let scale = scale.ok_or_else(|| wrong(SCALE, "no finite number".to_owned()))?;
                let good_steps = usize::try_from(count(GOOD_STEPS)?).unwrap_or(usize::MAX);
                let bits = find(PENDING).and_then(|scalar| u64::try_from(scalar).ok());
                let bits = bits.filter(|bits| *bits > 0);
                let bits = bits.ok_or_else(|| wrong(PENDING, "no outcomes".to_owned()))?;
                let pending = (0..bits.ilog2()).rev().map(|place| bits >> place & 1 == 1);
                Some(ScaleState { scale, good_steps, pending: pending.collect() })
            }
        };
        let (steps, skipped) = (count(STEPS)?, count(SKIPPED)?);
        let passes = Self::passes(find)?;
        Ok(Some(Self { steps, skipped, loss_scale, passes }))
    }

    fn passes(find: impl Fn(&str) -> Option<Scalar>) -> Result<PassState, WsamError> {
        let place = match find(PLACE) {
            None => 0,
            Some(place) => {
                let place = u64::try_from(place).ok().and_then(|place| u32::try_from(place).ok());
                place.ok_or_else(|| wrong(PLACE, "no count below 2^32".to_owned()))?
            }
        };
        let number = |name: &'static str| {
            let number = |scalar| {
                let value = f64::try_from(scalar).ok();
                let value = value.filter(|value| value.is_finite() && *value >= 0.0);
                value.ok_or_else(|| wrong(name, "no finite number of at least 0".to_owned()))
            };
            find(name).map(number).transpose()
        };
        let averages = match (number(MEAN)?, number(VARIANCE)?) {
            (Some(mean), Some(variance)) => Some(([mean, variance], number(LAST_NORM)?)),
            (None, None) => None,
            (None, _) => return Err(wrong(MEAN, "nothing, beside a variance".to_owned())),
            (_, None) => return Err(wrong(VARIANCE, "nothing, beside a mean".to_owned())),
        };
        Ok(PassState { place, averages })
    }
}

fn wrong(name: &str, found: String) -> WsamError {
    WsamError::Record { reason: format!("{name} holds {found}") }
}
