//! Momentum-SAM (Becker et al. 2024), by the authors' code.

use super::Oracle;
use super::vectors::zip;
use crate::method::Method;

impl Oracle {
    /// Returns the weights at which the next step's first gradient is taken. They are `w`, but for Momentum-SAM:
    /// `w - rho m / (||m|| + eps)`, where `m` is the momentum buffer or first moment after the last step.
    ///
    /// A base without `m` has nothing to perturb along, so these are `w`. The same holds before the first step.
    pub fn gradient_point(&self) -> Vec<Vec<f64>> {
        let mut point = self.weights.clone();
        let (Method::MomentumSam, Some(index)) =
            (self.hyper.method, self.hyper.base.momentum_state())
        else {
            return point;
        };
        let m = &self.state[index];
        for members in &self.members {
            let norm = self.norm(&self.of(members, m));
            for tensor in members {
                let scale = self.groups[*tensor].rho / (norm + self.hyper.epsilon);
                point[*tensor] = zip(&self.weights[*tensor], &m[*tensor], |w, m| w - m * scale);
            }
        }
        point
    }
}
