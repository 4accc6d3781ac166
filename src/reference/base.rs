//! The base optimizers, by PyTorch's definitions.

use super::Oracle;
use super::vectors::{scaled, zip};
use crate::method::{Base, Moments, Momentum};

impl Oracle {
    /// Takes the base optimizer's step of one tensor on `h`. An L2 penalty is taken from the weights
    /// `penalised`, which are `w` but for Momentum-SAM. AdamW's decay is taken from `w`.
    pub(super) fn base_step_of(
        &mut self,
        base: Base,
        tensor: usize,
        lr: f64,
        h: &[f64],
        penalised: &[f64],
    ) {
        let direction = match base {
            Base::Sgd { momentum, weight_decay } => {
                let h = zip(h, penalised, |h, w| h + weight_decay * w);
                match momentum {
                    None => h,
                    Some(momentum) => self.momentum(momentum, tensor, &h),
                }
            }
            Base::Adam(moments) => {
                let h = zip(h, penalised, |h, w| h + moments.weight_decay * w);
                self.adam(moments, tensor, &h)
            }
            Base::AdamW(moments) => {
                let kept = 1.0 - lr * moments.weight_decay;
                self.weights[tensor] = scaled(&self.weights[tensor], kept);
                self.adam(moments, tensor, h)
            }
        };
        self.weights[tensor] = zip(&self.weights[tensor], &direction, |w, d| w - lr * d);
    }

    /// Momentum of `torch.optim.SGD`. The first step sets the buffer to the gradient, without dampening.
    fn momentum(&mut self, constants: Momentum, tensor: usize, h: &[f64]) -> Vec<f64> {
        let mu = constants.momentum;
        let share = 1.0 - constants.dampening;
        let m = if self.step == 1 {
            h.to_vec()
        } else {
            zip(&self.state[0][tensor], h, |m, h| mu * m + share * h)
        };
        self.state[0][tensor] = m.clone();
        if constants.nesterov { zip(h, &m, |h, m| h + mu * m) } else { m }
    }

    /// Update direction of `torch.optim.Adam`, with weight decay already applied to `h`. Both moments are
    /// bias-corrected. AMSGrad takes the maximum of the *uncorrected* second moments.
    fn adam(&mut self, constants: Moments, tensor: usize, h: &[f64]) -> Vec<f64> {
        let (b1, b2) = (constants.beta_1, constants.beta_2);
        let m = zip(&self.state[0][tensor], h, |m, h| b1 * m + (1.0 - b1) * h);
        let mut v = zip(&self.state[1][tensor], h, |v, h| b2 * v + (1.0 - b2) * h * h);
        self.state[0][tensor] = m.clone();
        self.state[1][tensor] = v.clone();
        if constants.amsgrad {
            // Not `f64::max`, which would hide a NaN.
            v = zip(&self.state[2][tensor], &v, |old, v| if old >= v { old } else { v });
            self.state[2][tensor] = v.clone();
        }

        let m_hat = scaled(&m, 1.0 / (1.0 - b1.powi(self.step)));
        let v_hat = scaled(&v, 1.0 / (1.0 - b2.powi(self.step)));
        zip(&m_hat, &v_hat, |m, v| m / (v.sqrt() + constants.epsilon))
    }
}
