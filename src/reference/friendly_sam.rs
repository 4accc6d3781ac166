//! Friendly-SAM (Li et al., CVPR 2024), by the authors' code.

use super::Oracle;
use super::vectors::zip;

impl Oracle {
    /// Returns `d = g - sigma h`, along which the weights are perturbed. The first step takes `g`.
    pub(super) fn friendly_direction(&self, sigma: f64, g: &[Vec<f64>]) -> Vec<Vec<f64>> {
        if !self.has_average {
            return g.to_vec();
        }
        g.iter().zip(&self.method_state[0]).map(|(g, h)| zip(g, h, |g, h| g - sigma * h)).collect()
    }

    /// Takes `g` into the average `h` of the perturbed parameters. The first step sets the average to `g`.
    pub(super) fn update_average(&mut self, lambda: f64, g: &[Vec<f64>]) {
        for tensor in self.members.iter().flatten() {
            let h = &mut self.method_state[0][*tensor];
            *h = match self.has_average {
                false => g[*tensor].clone(),
                true => zip(h, &g[*tensor], |h, g| lambda * h + (1.0 - lambda) * g),
            };
        }
        self.has_average = true;
    }
}
