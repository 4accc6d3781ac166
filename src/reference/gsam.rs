//! GSAM (Zhuang et al., ICLR 2022), Algorithm 1.

use super::Oracle;
use super::vectors::{dot, zip};

impl Oracle {
    /// Returns the gradient that the base optimizer steps on: `g~ - alpha v`, where `v` is the part of `g` that is
    /// orthogonal to `g~`.
    ///
    /// The lengths and the cosine are those of the gradients before clipping (`g`, `p`), one for each norm scope.
    /// `clipped_g` and `clipped_p` enter the sum. Parameters that are not perturbed get `g~`.
    pub(super) fn gsam_gradient(
        &self,
        alpha: f64,
        (g, p): (&[Vec<f64>], &[Vec<f64>]),
        (clipped_g, clipped_p): (&[Vec<f64>], &[Vec<f64>]),
    ) -> Vec<Vec<f64>> {
        let (epsilon, factor) = (self.hyper.epsilon, self.gradient_factor());
        let mut h = clipped_p.to_vec();
        for members in &self.members {
            let (g, p) = (self.of(members, g), self.of(members, p));
            let (g_norm, p_norm) = (self.norm(&g), self.norm(&p));
            let cosine = dot(&g, &p) / (g_norm * p_norm + epsilon);
            // Unclipped: v = g - cosine ||g|| p / (||p|| + eps). Both terms scale with g, so clipping g clips v.
            let along = cosine * g_norm / (p_norm + epsilon);
            for (place, tensor) in members.iter().enumerate() {
                let v = zip(&clipped_g[*tensor], &p[place], |g, p| g - factor * along * p);
                h[*tensor] = zip(&h[*tensor], &v, |p, v| p - alpha * v);
            }
        }
        h
    }
}
