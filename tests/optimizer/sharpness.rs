//! Measures of sharpness, compared with values known by other means.

use super::Target;
use super::nets::{ConvNet, data};
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_wsam::WsamError;
use burn_wsam::sharpness::{
    Plane, PowerIteration, SharpnessError, Surface, loss_rise, surface as loss_surface,
    top_eigenvalue,
};

/// Weights of a quadratic.
#[derive(Module, Debug)]
struct Weights {
    w: Param<Tensor<2>>,
}

const WEIGHTS: [f32; 6] = [0.5, -1.0, 2.0, 0.25, -0.75, 1.5];

/// `L = w A w / 2 + w b` with a Hessian `A` of known eigenvalues.
struct Quadratic {
    a: [[f64; 6]; 6],
    b: [f64; 6],
}

impl Quadratic {
    /// `A = Q diag(eigenvalues) Q`, with a reflection `Q`.
    fn new(eigenvalues: [f64; 6]) -> Self {
        let normal = [1.0, -2.0, 0.5, 3.0, 1.5, -1.0];
        let square: f64 = normal.iter().map(|x: &f64| x * x).sum();
        let q =
            |i: usize, j: usize| f64::from(u8::from(i == j)) - 2.0 * normal[i] * normal[j] / square;
        let entry = |i, j| (0..6).map(|k| q(i, k) * eigenvalues[k] * q(k, j)).sum();
        let a = std::array::from_fn(|i| std::array::from_fn(|j| entry(i, j)));
        Self { a, b: [0.1, 0.2, -0.3, 0.4, -0.5, 0.6] }
    }

    fn model(device: &Device) -> Weights {
        Weights { w: Param::from_data(TensorData::new(WEIGHTS.to_vec(), [1, 6]), device) }
    }

    fn loss(&self, device: &Device) -> impl Fn(&Weights) -> Tensor<1> {
        let tensor = |values: Vec<f64>, shape: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(values, shape), device)
        };
        let a = tensor(self.a.concat(), [6, 6]);
        let b = tensor(self.b.to_vec(), [1, 6]);
        move |model| {
            let w = model.w.val();
            (w.clone().matmul(a.clone()) * w.clone()).sum() * 0.5 + (w * b.clone()).sum()
        }
    }

    fn times(&self, v: [f64; 6]) -> [f64; 6] {
        self.a.map(|row| row.iter().zip(v).map(|(a, v)| a * v).sum())
    }

    /// `L(w + e_w) - L(w)` in f64.
    fn rise(&self, rho: f64, adaptive: bool) -> f64 {
        let w = WEIGHTS.map(f64::from);
        let aw = self.times(w);
        let g: [f64; 6] = std::array::from_fn(|i| aw[i] + self.b[i]);
        let scale: [f64; 6] = if adaptive { w.map(f64::abs) } else { [1.0; 6] };
        let norm = (0..6).map(|i| (scale[i] * g[i]).powi(2)).sum::<f64>().sqrt();
        let e: [f64; 6] = std::array::from_fn(|i| rho * scale[i] * scale[i] * g[i] / norm);
        let ae = self.times(e);
        (0..6).map(|i| g[i] * e[i] + 0.5 * e[i] * ae[i]).sum()
    }
}

fn near(what: &str, got: f64, want: f64, relative: f64) -> Result<(), String> {
    // A NaN makes the comparison false.
    let passes = (got - want).abs() <= relative * want.abs();
    if passes { Ok(()) } else { Err(format!("{what}: {got}, expected {want}")) }
}

fn text<T>(result: Result<T, SharpnessError>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

pub(crate) fn rise(target: &Target) -> Result<(), String> {
    let quadratic = Quadratic::new([5.0, 3.0, 1.0, 0.5, -2.0, 0.0]);
    let (model, loss) = (Quadratic::model(&target.device), quadratic.loss(&target.device));
    for (rho, adaptive) in [(0.05, false), (0.5, false), (0.5, true)] {
        let got = text(loss_rise(&model, rho, adaptive, &loss))?;
        // The tolerance allows for f32 losses of about 10.
        near("the rise", got, quadratic.rise(rho, adaptive), 1e-4)?;
    }
    Ok(())
}

/// Finds the largest eigenvalue, also where another one is larger in magnitude.
pub(crate) fn eigenvalues(target: &Target) -> Result<(), String> {
    let options = PowerIteration::default().with_tolerance(1e-5);
    let cases = [
        [5.0, 3.0, 1.0, 0.5, -2.0, 0.0],
        [-5.0, 3.0, 1.0, 0.5, -2.0, 0.0],
        [-5.0, -3.0, -1.0, -0.5, -2.0, -4.0],
        [0.002, 0.001, 0.0, 0.0, 0.0, -0.0005],
    ];
    for eigenvalues in cases {
        let quadratic = Quadratic::new(eigenvalues);
        let (model, loss) = (Quadratic::model(&target.device), quadratic.loss(&target.device));
        let top = text(top_eigenvalue(&model, &options, &loss))?;
        let want = eigenvalues.into_iter().fold(f64::MIN, f64::max);
        near("the largest eigenvalue", top.value, want, 2e-3)?;
        if !top.converged || top.products > options.max_products {
            return Err(format!("{top:?}"));
        }
        let again = text(top_eigenvalue(&model, &options, &loss))?;
        // The start vector is the same, but Burn may sum in another order.
        near("the eigenvalue again", again.value, top.value, 1e-4)?;
    }
    // Two products are too few, and the result reports that.
    let hasty = PowerIteration::default().with_max_products(2).with_tolerance(1e-9);
    let quadratic = Quadratic::new(cases[0]);
    let (model, loss) = (Quadratic::model(&target.device), quadratic.loss(&target.device));
    let top = text(top_eigenvalue(&model, &hasty, &loss))?;
    if top.converged || top.products != 2 || top.residual <= 0.0 {
        return Err(format!("after two products {top:?}"));
    }
    Ok(())
}

#[derive(Module, Debug)]
struct Several {
    first: Param<Tensor<1>>,
    tied: Param<Tensor<1>>,
    frozen: Param<Tensor<1>>,
    idle: Param<Tensor<1>>,
}

/// `L = 2 w w / 2 + 5 w w / 2 + 100 f f / 2`: 7 with `w` tied, 100 if `f` were not frozen.
pub(crate) fn tied_and_frozen(target: &Target) -> Result<(), String> {
    let param = |values: [f32; 2]| Param::<Tensor<1>>::from_data(values, &target.device);
    let first = param([1.0, -2.0]);
    let frozen = param([1.0, 1.0]).set_require_grad(false);
    let model = Several { tied: first.clone(), first, frozen, idle: param([3.0, 3.0]) };
    let square = |param: &Param<Tensor<1>>| param.val().powi_scalar(2).sum();
    let loss = |model: &Several| {
        square(&model.first) + square(&model.tied) * 2.5 + square(&model.frozen) * 50.0
    };
    let top = text(top_eigenvalue(&model, &PowerIteration::default(), loss))?;
    near("the eigenvalue", top.value, 7.0, 1e-3)?;
    // L = 3.5 |w|^2, so that the climb leads along w: 7 |w| rho + 3.5 rho^2.
    let (length, rho) = (5.0_f64.sqrt(), 0.5);
    let rise = text(loss_rise(&model, rho, false, loss))?;
    near("the rise", rise, 7.0 * length * rho + 3.5 * rho * rho, 1e-4)
}

/// Measuring changes neither weights nor running statistics, although the closure runs in training mode.
pub(crate) fn changes_nothing(target: &Target) -> Result<(), String> {
    let model = ConvNet::new(&target.device);
    let state = |model: &ConvNet| {
        let mean = model.norm.running_mean.value_sync().into_data();
        let variance = model.norm.running_var.value_sync().into_data();
        (mean, variance, model.conv.weight.val().into_data(), model.linear.weight.val().into_data())
    };
    let before = state(&model);
    let loss = |model: &ConvNet| model.loss(3);
    let options = PowerIteration::default().with_max_products(3);
    text(loss_rise(&model, 0.05, false, loss))?;
    text(top_eigenvalue(&model, &options, loss))?;
    text(loss_surface(&model, &Plane::default().with_points(2), loss))?;
    if state(&model) == before { Ok(()) } else { Err("the model has changed".to_owned()) }
}

#[derive(Module, Debug)]
struct Layer {
    weight: Param<Tensor<2>>,
    kernel: Param<Tensor<3>>,
    bias: Param<Tensor<1>>,
}

/// With `L = |w|^2 / 2 + c |k|^2 / 2 + |b|^2 / 2`, the second difference along an axis is
/// `a^2 (|d_w|^2 + c |d_k|^2)`. Filter normalisation gives each direction `d` the norm of its weights.
pub(crate) fn surface(target: &Target) -> Result<(), String> {
    let device = &target.device;
    let layer = Layer {
        weight: Param::from_tensor(data([4, 3], 1, device)),
        kernel: Param::from_tensor(data([2, 3, 5], 2, device)),
        bias: Param::from_tensor(data([3], 3, device)),
    };
    let loss = |layer: &Layer| {
        let square = |sum: Tensor<1>| sum * 0.5;
        square(layer.weight.val().powi_scalar(2).sum())
            + square(layer.kernel.val().powi_scalar(2).sum()) * 3.0
            + square(layer.bias.val().powi_scalar(2).sum())
    };
    let plane = Plane::default().with_radius(2.0).with_points(5).with_seed(9);
    let got = text(loss_surface(&layer, &plane, loss))?;
    if got.coordinates != [-2.0, -1.0, 0.0, 1.0, 2.0] {
        return Err(format!("{:?}", got.coordinates));
    }
    let square = |tensor: Tensor<1>| tensor.into_scalar::<f64>();
    let norms = square(layer.weight.val().powi_scalar(2).sum())
        + 3.0 * square(layer.kernel.val().powi_scalar(2).sum());
    let at = |j: usize, i: usize| got.losses[j][i];
    near("the middle", at(2, 2), square(loss(&layer)), 1e-5)?;
    for (what, second) in [
        ("along the first", at(2, 3) + at(2, 1) - 2.0 * at(2, 2)),
        ("along the second", at(3, 2) + at(1, 2) - 2.0 * at(2, 2)),
        ("twice as far", (at(2, 4) + at(2, 0) - 2.0 * at(2, 2)) / 4.0),
    ] {
        near(what, second, norms, 1e-4)?;
    }
    let other = text(loss_surface(&layer, &plane.with_seed(10), loss))?;
    let again = text(loss_surface(&layer, &plane, loss))?;
    // Burn may sum a loss in another order; another seed changes the corners by far more.
    let corner = |surface: &Surface| surface.losses[0][0];
    let far = (corner(&other) - corner(&got)).abs() > 1e-2 * corner(&got).abs();
    for (again, got) in again.losses.concat().iter().zip(got.losses.concat()) {
        near("again", *again, got, 1e-5)?;
    }
    if again.coordinates != got.coordinates || !far {
        return Err("the surface does not depend on the seed alone".to_owned());
    }
    Ok(())
}

pub(crate) fn refused(target: &Target) -> Result<(), String> {
    let quadratic = Quadratic::new([1.0; 6]);
    let (model, loss) = (Quadratic::model(&target.device), quadratic.loss(&target.device));
    let expect = |result: Result<(), SharpnessError>, words: &str| match result {
        Err(error) if error.to_string().contains(words) => Ok(()),
        other => Err(format!("{other:?}, expected {words:?}")),
    };
    expect(loss_rise(&model, -1.0, false, &loss).map(drop), "rho is -1")?;
    let options = PowerIteration::default();
    for (options, words) in [
        (options.with_max_products(0), "max_products is 0"),
        (options.with_tolerance(f64::NAN), "tolerance is NaN"),
        (options.with_step(Some(0.0)), "step is 0"),
    ] {
        expect(top_eigenvalue(&model, &options, &loss).map(drop), words)?;
    }
    let plane = Plane::default();
    for (plane, words) in
        [(plane.with_points(1), "points is 1"), (plane.with_radius(f64::INFINITY), "radius is inf")]
    {
        expect(loss_surface(&model, &plane, &loss).map(drop), words)?;
    }
    let nan = |model: &Weights| loss(model) * f64::NAN;
    let not_finite = |result: Result<(), SharpnessError>| match result {
        Err(SharpnessError::NotFinite { value, .. }) if value.is_nan() => Ok(()),
        other => Err(format!("{other:?} for a non-finite loss")),
    };
    not_finite(loss_rise(&model, 0.1, false, nan).map(drop))?;
    not_finite(top_eigenvalue(&model, &options, nan).map(drop))?;

    let without_autodiff = |model: &Weights| loss(model).detach().without_autodiff();
    let no_autodiff = |result: Result<(), SharpnessError>| match result {
        Err(SharpnessError::Refused(WsamError::NoAutodiff)) => Ok(()),
        other => Err(format!("{other:?} for a loss without autodiff")),
    };
    no_autodiff(loss_rise(&model, 0.1, false, without_autodiff).map(drop))?;
    no_autodiff(top_eigenvalue(&model, &options, without_autodiff).map(drop))?;
    no_autodiff(loss_surface(&model.valid(), &plane, &loss).map(drop))?;
    let frozen = model.no_grad();
    expect(top_eigenvalue(&frozen, &options, &loss).map(drop), "none of the model's parameters")
}

#[derive(Module, Debug)]
struct Mlp {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
}

/// Compares the largest eigenvalue of a network of 20 weights in f64 with that of its Hessian, computed by second
/// differences of the loss written out here.
pub(crate) fn dense(target: &Target) -> Result<(), String> {
    let numbers = |len: usize, seed: u64| -> Vec<f64> {
        let read = data([len], seed, &target.device).into_data();
        read.iter::<f64>().collect()
    };
    let (w, x, y) = (numbers(20, 5), numbers(15, 6), numbers(10, 7));
    // Five rows of three, through a layer of four with tanh, to two.
    let value = |w: &[f64]| -> f64 {
        let mut sum = 0.0;
        for row in 0..5 {
            let hidden: [f64; 4] = std::array::from_fn(|j| {
                (0..3).map(|i| x[3 * row + i] * w[4 * i + j]).sum::<f64>().tanh()
            });
            for k in 0..2 {
                let out: f64 = (0..4).map(|j| hidden[j] * w[12 + 2 * j + k]).sum();
                sum += (out - y[2 * row + k]).powi(2);
            }
        }
        sum / 10.0
    };
    let h = 1e-4;
    let at = |i: usize, by_i: f64, j: usize, by_j: f64| {
        let mut moved = w.clone();
        moved[i] += by_i;
        moved[j] += by_j;
        value(&moved)
    };
    let hessian: Vec<Vec<f64>> = (0..20)
        .map(|i| {
            let entry = |j| {
                (at(i, h, j, h) - at(i, h, j, -h) - at(i, -h, j, h) + at(i, -h, j, -h))
                    / (4.0 * h * h)
            };
            (0..20).map(entry).collect()
        })
        .collect();
    // Power iteration on the shifted Hessian, whose largest eigenvalue is the largest in magnitude.
    let shift = hessian.iter().map(|row| row.iter().map(|x| x.abs()).sum()).fold(0.0, f64::max);
    let (mut v, mut want) = (vec![1.0; 20], 0.0);
    for _ in 0..20_000 {
        let image: Vec<f64> = (0..20)
            .map(|i| shift * v[i] + hessian[i].iter().zip(&v).map(|(a, v)| a * v).sum::<f64>())
            .collect();
        let norm = image.iter().map(|x| x * x).sum::<f64>().sqrt();
        want = norm - shift;
        v = image.iter().map(|x| x / norm).collect();
    }

    let param = |values: &[f64], shape: [usize; 2]| {
        let data = TensorData::new(values.to_vec(), shape);
        Param::from_tensor(Tensor::<2>::from_data(data, (&target.device, DType::F64)))
    };
    let model = Mlp { a: param(&w[..12], [3, 4]), b: param(&w[12..], [4, 2]) };
    let fixed = |values: &[f64], shape: [usize; 2]| {
        let data = TensorData::new(values.to_vec(), shape);
        Tensor::<2>::from_data(data, (&target.device, DType::F64))
    };
    let (x, y) = (fixed(&x, [5, 3]), fixed(&y, [5, 2]));
    let loss = |model: &Mlp| {
        let hidden = x.clone().matmul(model.a.val()).tanh();
        (hidden.matmul(model.b.val()) - y.clone()).powi_scalar(2).mean()
    };
    near("the loss", loss(&model).into_scalar::<f64>(), value(&w), 1e-9)?;
    let options = PowerIteration::default().with_tolerance(1e-9).with_max_products(2000);
    let top = text(top_eigenvalue(&model, &options, loss))?;
    if !top.converged || top.residual > 1e-3 * want {
        return Err(format!("{top:?}, expected {want}"));
    }
    near("the largest eigenvalue", top.value, want, 1e-5)
}
