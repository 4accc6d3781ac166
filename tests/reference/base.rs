//! Values of gamma at which the step equals a known optimizer, for every base optimizer.

use burn_wsam::method::{Base, Coupling, Hyperparameters, Moments};
use burn_wsam::reference::Oracle;

use crate::{assert_close, bases, flat, gradient, start, step};

/// One element under the base optimizer alone, by PyTorch's documentation.
fn base_alone(base: Base, lr: f64, mut w: f64, grads: &[f64]) -> f64 {
    let (mut m, mut v, mut v_max) = (0.0, 0.0, 0.0_f64);
    for (i, &g) in grads.iter().enumerate() {
        let mut adam = |w: &mut f64, g: f64, c: Moments| {
            m += (1.0 - c.beta_1) * (g - m);
            v += (1.0 - c.beta_2) * (g * g - v);
            v_max = v_max.max(v);
            let v = if c.amsgrad { v_max } else { v };
            let (fix_1, fix_2) =
                (1.0 - c.beta_1.powf(i as f64 + 1.0), 1.0 - c.beta_2.powf(i as f64 + 1.0));
            *w -= lr / fix_1 * m / (v.sqrt() / fix_2.sqrt() + c.epsilon);
        };
        match base {
            Base::Sgd { momentum: None, weight_decay } => w -= lr * (g + weight_decay * w),
            Base::Sgd { momentum: Some(c), weight_decay } => {
                let g = g + weight_decay * w;
                m = if i == 0 { g } else { c.momentum * m + (1.0 - c.dampening) * g };
                w -= lr * if c.nesterov { g + c.momentum * m } else { m };
            }
            Base::Adam(c) => {
                let g = g + c.weight_decay * w;
                adam(&mut w, g, c);
            }
            Base::AdamW(c) => {
                w -= lr * c.weight_decay * w;
                adam(&mut w, g, c);
            }
            other => unimplemented!("{other:?}"),
        }
    }
    w
}

#[test]
fn gamma_zero_is_the_base_optimizer() {
    for base in bases() {
        for coupling in [Coupling::Coupled, Coupling::Decoupled] {
            let hyper = Hyperparameters { gamma: 0.0, coupling, ..Hyperparameters::new(base) };
            let mut oracle = Oracle::new(hyper, start());
            let mut other = oracle.clone();
            for t in 0..5 {
                step(&mut oracle, &gradient(t), &gradient(t + 100), 0.1);
                step(&mut other, &gradient(t), &gradient(t + 200), 0.1);
            }
            assert_eq!(oracle.weights(), other.weights(), "{base:?} read g~");

            let grads: Vec<Vec<f64>> = (0..5).map(|t| flat(&gradient(t))).collect();
            let want: Vec<f64> = (flat(&start()).into_iter().enumerate())
                .map(|(i, w)| {
                    base_alone(base, 0.1, w, &grads.iter().map(|g| g[i]).collect::<Vec<_>>())
                })
                .collect();
            assert_close(&flat(oracle.weights()), &want, 1e-13);
        }
    }
}

#[test]
fn coupled_gamma_one_half_is_sam() {
    for base in bases() {
        let hyper = Hyperparameters { coupling: Coupling::Coupled, ..Hyperparameters::new(base) };
        let mut sam = Oracle::new(Hyperparameters { gamma: 0.5, ..hyper.clone() }, start());
        let mut alone = Oracle::new(Hyperparameters { gamma: 0.0, ..hyper.clone() }, start());
        for t in 0..5 {
            step(&mut sam, &gradient(t), &gradient(t + 100), 0.1);
            step(&mut alone, &gradient(t + 100), &gradient(t), 0.1);
        }
        assert_eq!(sam.weights(), alone.weights(), "{base:?}");
        assert_eq!(sam.state(), alone.state(), "{base:?}");
    }
}

#[test]
fn decoupled_sharpness_does_not_enter_the_state() {
    for base in bases() {
        let hyper = Hyperparameters::new(base);
        let mut oracle = Oracle::new(hyper.clone(), start());
        let mut alone = Oracle::new(Hyperparameters { gamma: 0.0, ..hyper }, start());
        let (g, p, lr) = (gradient(1), gradient(101), 0.1);
        step(&mut oracle, &g, &p, lr);
        step(&mut alone, &g, &p, lr);
        assert_eq!(oracle.state(), alone.state(), "{base:?}");

        let sharpness = flat(&p).into_iter().zip(flat(&g)).map(|(p, g)| p - g);
        let want: Vec<f64> = (flat(alone.weights()).into_iter().zip(sharpness))
            .map(|(w, s)| w - lr * 9.0 * s)
            .collect();
        assert_close(&flat(oracle.weights()), &want, 1e-12);
    }
}
