//! The phases of a step, and the steps over one gradient.

use super::vectors::{all_scaled, zip};
use super::{Oracle, ReferenceError};
use crate::method::{CLIP_EPSILON, ClipScope, Coupling, InGroup, Method, Outcome, Passes};

impl Oracle {
    /// Returns how many gradients the next step takes.
    pub fn passes(&self) -> Passes {
        self.hyper.method.passes(self.place)
    }

    /// Returns `w + e_w` for the gradient `g` at `w`. The oracle's own weights do not change: they are the anchor.
    ///
    /// A second ascent before the descent replaces the first.
    ///
    /// # Errors
    ///
    /// The number or a length of the gradients differs from the weights', or [`ReferenceError::OnePass`]. On an
    /// error nothing changes.
    #[doc(alias = "first_step")]
    pub fn ascent(&mut self, grads: &[Vec<f64>]) -> Result<Vec<Vec<f64>>, ReferenceError> {
        self.check(grads)?;
        if self.passes() == Passes::One {
            return Err(ReferenceError::OnePass { method: self.hyper.method.name() });
        }
        self.norms.gradient = self.norm(grads);
        let along = match self.hyper.method {
            Method::FriendlySam { sigma, .. } => self.friendly_direction(sigma, grads),
            _ => grads.to_vec(),
        };
        let mut perturbed = self.weights.clone();
        for members in &self.members {
            // T_w d (Kwon et al. 2021), with d = g but for Friendly-SAM.
            let scaled = members.iter().map(|tensor| {
                let (w, d) = (&self.weights[*tensor], &along[*tensor]);
                match self.groups[*tensor].adaptive {
                    false => d.clone(),
                    true => zip(w, d, |w, d| w.abs() * d),
                }
            });
            let divisor = self.norm(&scaled.collect::<Vec<_>>());
            for tensor in members {
                let (w, d) = (&self.weights[*tensor], &along[*tensor]);
                let group = &self.groups[*tensor];
                let scale = group.rho / (divisor + self.hyper.epsilon);
                perturbed[*tensor] = match group.adaptive {
                    false => zip(w, d, |w, d| w + d * scale),
                    true => zip(w, d, |w, d| w + w * w * d * scale),
                };
            }
        }
        self.pending = Some(grads.to_vec());
        Ok(perturbed)
    }

    /// Updates the weights and the state, given the gradient `g~` at `w + e_w`. If a gradient is not finite it
    /// follows [`Hyperparameters::non_finite`](crate::method::Hyperparameters::non_finite).
    ///
    /// # Errors
    ///
    /// The number or a length of the gradients differs from the weights', or
    /// [`ReferenceError::DescentBeforeAscent`]. On an error nothing changes.
    #[doc(alias = "second_step")]
    pub fn descent(&mut self, lr: f64, grads_perturbed: &[Vec<f64>]) -> Result<(), ReferenceError> {
        self.check(grads_perturbed)?;
        let g = self.pending.take().ok_or(ReferenceError::DescentBeforeAscent)?;
        self.norms.perturbed = self.norm(grads_perturbed);
        let (gradient, perturbed) = (self.norms.gradient, self.norms.perturbed);
        let outcome =
            self.hyper.non_finite.outcome(false, gradient.is_finite(), perturbed.is_finite());
        if outcome == Outcome::Skipped {
            return Ok(());
        }
        self.step = self.step.saturating_add(1);

        let clipped_g = all_scaled(&g, self.gradient_factor());
        let clipped_p = all_scaled(grads_perturbed, self.clip_factor(self.norms.perturbed));
        let whole = outcome == Outcome::Whole;
        match self.hyper.method {
            _ if !whole => self.base_steps(lr, &clipped_g, None),
            Method::Wsam => self.wsam_steps(lr, &clipped_g, &clipped_p),
            Method::Gsam { alpha } => {
                let clipped = (clipped_g.as_slice(), clipped_p.as_slice());
                let h = self.gsam_gradient(alpha, (&g, grads_perturbed), clipped);
                self.base_steps(lr, &h, None);
            }
            Method::FriendlySam { .. } | Method::LookSam { .. } | Method::MomentumSam => {
                self.base_steps(lr, &clipped_p, None);
            }
        }
        match self.hyper.method {
            // The average needs g only.
            Method::FriendlySam { lambda, .. } => self.update_average(lambda, &g),
            Method::LookSam { .. } if whole => self.store_direction(&g, grads_perturbed),
            _ => {}
        }
        if whole {
            self.place = self.hyper.method.next_place(self.place);
        }
        Ok(())
    }

    /// Takes the base optimizer's step on `g`, without the second pass. An ascent before it is discarded.
    ///
    /// It equals a WSAM step at `gamma = 0`. It changes nothing of what the method stores. The weight decay is that
    /// of `w`, also under Momentum-SAM.
    ///
    /// # Errors
    ///
    /// Those of [`ascent`](Self::ascent), but for [`ReferenceError::OnePass`].
    pub fn base_step(&mut self, lr: f64, grads: &[Vec<f64>]) -> Result<(), ReferenceError> {
        self.check(grads)?;
        if self.begin_single(grads) {
            let g = all_scaled(grads, self.gradient_factor());
            self.base_steps(lr, &g, None);
        }
        Ok(())
    }

    /// Takes a step of a method that needs one gradient now: LookSAM between its SAM steps, and Momentum-SAM always.
    /// `grads` is the gradient at [`gradient_point`](Self::gradient_point).
    ///
    /// Momentum-SAM's gradient is clipped in both [`ClipScope`]s, because it is the only one.
    ///
    /// # Errors
    ///
    /// The number or a length of the gradients differs from the weights', or [`ReferenceError::TwoPasses`]. On an
    /// error nothing changes.
    pub fn one_pass_step(&mut self, lr: f64, grads: &[Vec<f64>]) -> Result<(), ReferenceError> {
        self.check(grads)?;
        if self.passes() == Passes::Two {
            return Err(ReferenceError::TwoPasses { method: self.hyper.method.name() });
        }
        if !self.begin_single(grads) {
            return Ok(());
        }
        match self.hyper.method {
            Method::LookSam { alpha, .. } => {
                let corrected = self.corrected_gradient(alpha, grads);
                let h = all_scaled(&corrected, self.gradient_factor());
                self.base_steps(lr, &h, None);
            }
            _ => {
                let point = self.gradient_point();
                let g = all_scaled(grads, self.clip_factor(self.norms.gradient));
                self.base_steps(lr, &g, Some(&point));
            }
        }
        self.place = self.hyper.method.next_place(self.place);
        Ok(())
    }

    /// Counts a step over one gradient. Returns whether it is taken.
    fn begin_single(&mut self, grads: &[Vec<f64>]) -> bool {
        self.pending = None;
        self.norms.gradient = self.norm(grads);
        let finite = self.norms.gradient.is_finite();
        if self.hyper.non_finite.outcome(false, finite, true) == Outcome::Skipped {
            return false;
        }
        self.step = self.step.saturating_add(1);
        true
    }

    /// WSAM's step in its two forms.
    fn wsam_steps(&mut self, lr: f64, g: &[Vec<f64>], p: &[Vec<f64>]) {
        let blends = self.groups.iter().map(|group| group.blend).collect::<Vec<_>>();
        let pairs = || g.iter().zip(p).zip(&blends);
        match self.hyper.coupling {
            Coupling::Coupled => {
                let h: Vec<Vec<f64>> = pairs()
                    .map(|((g, p), blend)| zip(g, p, |g, p| blend.a * g + blend.b * p))
                    .collect();
                self.base_steps(lr, &h, None);
            }
            Coupling::Decoupled => {
                self.base_steps(lr, g, None);
                for (tensor, ((g, p), blend)) in pairs().enumerate() {
                    let lr = lr * self.groups[tensor].lr_factor;
                    let sharpness = zip(p, g, |p, g| p - g);
                    let step = |w, s| w - lr * blend.sharpness * s;
                    self.weights[tensor] = zip(&self.weights[tensor], &sharpness, step);
                }
            }
        }
    }

    /// Takes the base optimizer's step of every tensor on `h`. An L2 penalty is taken from the weights `penalised`;
    /// `None` stands for `w`.
    fn base_steps(&mut self, lr: f64, h: &[Vec<f64>], penalised: Option<&[Vec<f64>]>) {
        for (tensor, h) in h.iter().enumerate() {
            let InGroup { base, lr_factor, .. } = self.groups[tensor];
            let w = match penalised {
                Some(weights) => weights[tensor].clone(),
                None => self.weights[tensor].clone(),
            };
            self.base_step_of(base, tensor, lr * lr_factor, h, &w);
        }
    }

    /// Returns the factor by which clipping scales `g`.
    pub(super) fn gradient_factor(&self) -> f64 {
        match self.hyper.clip.map(|clip| clip.scope) {
            Some(ClipScope::Both) => self.clip_factor(self.norms.gradient),
            Some(ClipScope::PerturbedOnly) | None => 1.0,
        }
    }

    /// Returns the factor by which clipping scales a gradient of this norm, as PyTorch's `clip_grad_norm_`.
    fn clip_factor(&self, norm: f64) -> f64 {
        let Some(clip) = self.hyper.clip else {
            return 1.0;
        };
        let ratio = clip.max_norm / (norm + CLIP_EPSILON);
        // Not `f64::min`, which would hide a NaN.
        if ratio > 1.0 { 1.0 } else { ratio }
    }
}
