//! Half precision: the element types that steps compute in, and a test which `f32` values round to which half,
//! without rounding.
//!
//! A driver may remove a cast to half precision and back within one kernel (NVIDIA's does), so comparing with a
//! cast copy is not reliable. The bounds of a half's rounding interval follow from the half
//! alone, by comparisons and products with powers of two, all of which are exact.

use burn::tensor::{Bool, DType, FloatDType, Tensor};

/// Element type in which a step over tensors of `dtype` computes and keeps its state. Half precision is used for
/// weights and gradients only.
pub(crate) fn computed_in(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}

/// Master weights of a parameter in half precision, with `weight` in `f32`: `master` where the weight is its
/// rounded copy, and `weight` elsewhere.
///
/// The comparison accepts Burn's cast as well, for devices that do not round to the nearest. The cast alone is
/// not reliable: see the [module](self).
pub(crate) fn reconciled(weight: Tensor<1>, dtype: DType, master: Option<Tensor<1>>) -> Tensor<1> {
    let Some(master) = master else { return weight };
    let copy = of_type(of_type(master.clone(), dtype), weight.dtype());
    let same = rounds_to(&master, &weight, dtype).bool_or(copy.equal(weight.clone()));
    weight.mask_where(same, master)
}

pub(crate) fn of_type<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(FloatDType::from(dtype)) }
}

/// A half-precision format.
struct Half {
    /// Bits of the significand, with the implicit one.
    precision: i32,
    /// Exponent of the smallest normal number.
    smallest: i32,
    /// Largest exponent.
    largest: i32,
}

impl Half {
    fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F16 => Some(Self { precision: 11, smallest: -14, largest: 15 }),
            DType::BF16 => Some(Self { precision: 8, smallest: -126, largest: 127 }),
            _ => None,
        }
    }
}

fn power(exponent: i32) -> f64 {
    2f64.powi(exponent)
}

/// Mask of the elements where `value` rounds to `half`, to the nearest with ties to even. Both are in `f32`, and
/// `half` holds values of `dtype`, which is `f16` or `bf16`. Zeros of both signs are equal; the mask is false for
/// a NaN.
pub(crate) fn rounds_to(value: &Tensor<1>, half: &Tensor<1>, dtype: DType) -> Tensor<1, Bool> {
    let Some(format) = Half::of(dtype) else { return value.clone().equal(half.clone()) };
    let Half { precision, smallest, largest } = format;
    let size = half.clone().abs();
    // `value` along the half's sign. Zero has an interval on both sides.
    let along = value.clone().mask_where(half.clone().lower_elem(0.0), -value.clone());
    let along = along.mask_where(half.clone().equal_elem(0.0), value.clone().abs());

    // size = significand * unit, with the significand in [1, 2); below 1 for subnormal halves.
    let ones = size.ones_like();
    let (mut significand, mut unit) = (size.clone(), ones * power(smallest));
    let mut stages = 4;
    if largest > 64 {
        // The range of exponents is too wide for one product.
        let big = size.clone().greater_equal_elem(2.0);
        let halved = size.clone() * 0.5;
        significand = (significand * power(-smallest)).mask_where(big.clone(), halved);
        unit = unit.mask_fill(big, 2.0);
        stages = 6;
    } else {
        significand = significand * power(-smallest);
    }
    for stage in (0..=stages).rev() {
        let exponent = 1 << stage;
        let big = significand.clone().greater_equal_elem(power(exponent));
        significand = significand.clone().mask_where(big.clone(), significand * power(-exponent));
        unit = unit.clone().mask_where(big, unit * power(exponent));
    }
    // Half of the distance to the next larger half and to the next smaller one. The latter is halved at a power
    // of two.
    let above = unit.clone() * power(-precision);
    let is_power = significand.clone().equal_elem(1.0);
    let has_closer = is_power.bool_and(unit.greater_elem(power(smallest)));
    let below = above.clone().mask_where(has_closer, above.clone() * 0.5);
    let (low, high) = (size.clone() - below, size.clone() + above);

    // Ties belong to the half with an even last bit.
    let pairs = significand * power(precision - 2);
    let even = pairs.clone().equal(pairs.floor());
    let inside = along.clone().greater(low.clone()).bool_and(along.clone().lower(high.clone()));
    let tie = along.clone().equal(low).bool_or(along.clone().equal(high));
    let finite = inside.bool_or(tie.bool_and(even));

    // Values at least half a unit in the last place above the largest half round to infinity.
    let overflow = power(largest + 1) - power(largest - precision);
    let is_infinite = size.greater_elem(overflow);
    let infinite = is_infinite.clone().bool_and(along.greater_equal_elem(overflow));
    finite.bool_and(is_infinite.bool_not()).bool_or(infinite)
}

#[cfg(test)]
mod tests {
    use super::{reconciled, rounds_to};
    use burn::tensor::{DType, Device, Tensor, TensorData};
    use half::{bf16, f16};

    /// The next `f32` up, down for negative `by`.
    fn beside(x: f32, by: i32) -> f32 {
        // Ordered as the values are.
        let order = |bits: i32| if bits < 0 { i32::MIN.wrapping_sub(bits) } else { bits };
        f32::from_bits(order(order(x.to_bits() as i32).saturating_add(by)) as u32)
    }

    /// All halves, each with values at, inside and outside the ends of its rounding interval.
    fn cases(of: impl Fn(u16) -> f32, overflow: f32) -> Vec<(f32, f32)> {
        let mut cases = Vec::new();
        for bits in 0..=u16::MAX {
            let half = of(bits);
            let mut values = vec![half, -half, 0.0, f32::NAN, f32::INFINITY, f32::MAX];
            for neighbour in [bits.wrapping_add(1), bits.wrapping_sub(1)] {
                // Of an infinity, the number that would follow the largest half.
                let limit = |x: f32| if x.is_infinite() { overflow.copysign(x) } else { x };
                let sum = f64::from(limit(half)) + f64::from(limit(of(neighbour)));
                // Exact: a half has few bits.
                let middle = (sum / 2.0) as f32;
                values.extend((-2..=2).map(|by| beside(middle, by)));
                values.push(of(neighbour));
            }
            cases.extend(values.into_iter().map(|value| (value, half)));
        }
        cases
    }

    fn tensor(values: impl Iterator<Item = f32>, device: &Device) -> Tensor<1> {
        let values: Vec<f32> = values.collect();
        let len = values.len();
        Tensor::from_data(TensorData::new(values, [len]), device)
    }

    fn check(device: &Device, dtype: DType, cases: &[(f32, f32)], round: impl Fn(f32) -> f32) {
        let value = tensor(cases.iter().map(|case| case.0), device);
        let half = tensor(cases.iter().map(|case| case.1), device);
        let got = rounds_to(&value, &half, dtype).into_data();
        let mut seen = [0_usize; 2];
        for ((value, half), got) in cases.iter().zip(got.iter::<bool>()) {
            let want = round(*value) == *half;
            assert_eq!(got, want, "{value:e} for {half:e} in {dtype:?}");
            seen[usize::from(want)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 65_536), "{seen:?} cases");
    }

    fn every_half(device: &Device) {
        // Two places beyond the largest, as the infinities' neighbours.
        let cases16 = cases(|bits| f16::from_bits(bits).to_f32(), 65_536.0);
        check(device, DType::F16, &cases16, |x| f16::from_f32(x).to_f32());
    }

    fn every_brain_half(device: &Device, keep: impl Fn(f32) -> bool) {
        let mut cases = cases(|bits| bf16::from_bits(bits).to_f32(), f32::MAX);
        // 2^128, the number after the largest, is not an f32, so the middle is written out.
        let middle = f32::from_bits(0x7f7f_8000);
        for half in [f32::INFINITY, f32::from_bits(0x7f7f_0000)] {
            for sign in [1.0, -1.0] {
                cases.extend((-2..=2).map(|by| (sign * beside(middle, by), sign * half)));
            }
        }
        cases.retain(|(value, half)| keep(*value) && keep(*half));
        check(device, DType::BF16, &cases, |x| bf16::from_f32(x).to_f32());
    }

    #[test]
    fn every_half_on_the_cpu() {
        every_half(&Device::flex());
        every_brain_half(&Device::flex(), |_| true);
    }

    /// Where there is an adapter.
    #[cfg(feature = "fused-wsam")]
    #[test]
    fn every_half_on_the_gpu() {
        match crate::device() {
            Ok(device) => {
                every_half(&device);
                // Devices may flush subnormal numbers of f32.
                let normal = |x: f32| x == 0.0 || x.abs() >= f32::MIN_POSITIVE * 1024.0;
                every_brain_half(&device, |x| normal(x) && !x.is_nan());
            }
            // CI has an adapter.
            Err(error) => assert!(std::env::var_os("CI").is_none(), "no GPU: {error}"),
        }
    }

    /// A driver that folds the cast to a half and back into nothing compares master weights with
    /// themselves. They stay all the same, and give way where the weight is another.
    #[test]
    fn masters_stay_where_no_copy_is_rounded() {
        let device = Device::flex();
        let masters: Vec<f32> = (0..4096).map(|i| (i as f32 * 0.37).sin() * 0.3).collect();
        let rounded: Vec<f32> = masters.iter().map(|x| f16::from_f32(*x).to_f32()).collect();
        let weight = tensor(rounded.iter().copied(), &device);
        let master = tensor(masters.iter().copied(), &device);
        // What such a driver makes of the copy.
        let unrounded = master.clone();
        let folded = unrounded.equal(weight.clone()).int().sum().into_scalar::<i64>();
        assert!(folded < 100, "{folded} of 4096 masters are halves");
        let kept = reconciled(weight.clone(), DType::F16, Some(master.clone()));
        assert_eq!(kept.into_data(), master.clone().into_data());
        // A weight that the driver left unrounded in the same kernel is its own master.
        let kept = reconciled(master.clone(), DType::F16, Some(master.clone()));
        assert_eq!(kept.into_data(), master.clone().into_data());

        let other = tensor(rounded.iter().map(|x| -x), &device);
        let taken = reconciled(other.clone(), DType::F16, Some(master));
        let moved = taken.equal(other).int().sum().into_scalar::<i64>();
        assert_eq!(moved, 4096);
    }
}
