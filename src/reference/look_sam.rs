//! LookSAM (Liu et al., CVPR 2022), Algorithm 1.

use super::Oracle;
use super::vectors::{dot, scaled, zip};
use crate::method::LOOK_SAM_SMALLEST_SINE;

impl Oracle {
    /// Stores the unit vector of `v = g~ - <g, g~> / (||g||^2 + eps) g` for each norm scope. Where `v` is no more
    /// than rounding error it stores zeros.
    pub(super) fn store_direction(&mut self, g: &[Vec<f64>], p: &[Vec<f64>]) {
        for members in self.members.clone() {
            let (g, p) = (self.of(&members, g), self.of(&members, p));
            let (g_norm, p_norm) = (self.norm(&g), self.norm(&p));
            let along = dot(&g, &p) / (g_norm * g_norm + self.hyper.epsilon);
            let v: Vec<Vec<f64>> =
                g.iter().zip(&p).map(|(g, p)| zip(g, p, |g, p| p - along * g)).collect();
            let v_norm = self.norm(&v);
            // Written so that a NaN is stored, not hidden.
            let small = v_norm <= LOOK_SAM_SMALLEST_SINE * p_norm;
            for (tensor, v) in members.iter().zip(&v) {
                self.method_state[0][*tensor] = match small {
                    true => vec![0.0; v.len()],
                    false => v.iter().map(|v| v / v_norm).collect(),
                };
            }
        }
    }

    /// Returns the gradient of a step without a second pass: `g + alpha ||g|| h`. Clipping scales the whole sum by
    /// the factor of `g`.
    pub(super) fn corrected_gradient(&self, alpha: f64, g: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut corrected = g.to_vec();
        for members in &self.members {
            let length = alpha * self.norm(&self.of(members, g));
            for tensor in members {
                let correction = scaled(&self.method_state[0][*tensor], length);
                corrected[*tensor] = zip(&g[*tensor], &correction, |g, c| g + c);
            }
        }
        corrected
    }
}
