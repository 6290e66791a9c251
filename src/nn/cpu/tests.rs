//! The parts of a layer against plain loops in f64.

use proptest::prelude::*;

use super::attention::{Attention, Shape};
#[cfg(target_arch = "x86_64")]
use super::kernels::{Bf16Amx, Bf16Avx512};
use super::kernels::{F32, Kernel, Unscaled};
use super::math::{exponentials, gelu};
use super::norm::Norm;

/// How far GELU is off, from -20 to 20.
fn gelus(exact: bool) -> impl Iterator<Item = (f32, f64)> {
    let erf = |x: f64| candle_core::cpu::erf::erf_f64(x);
    let gelu_of = move |x: f64| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2));
    let inputs: Vec<f32> = (-200_000..=200_000).map(|step| step as f32 * 1e-4).collect();
    let mut outputs = inputs.clone();
    gelu(&mut outputs, 1, inputs.len(), inputs.len(), exact);
    let errors = inputs.into_iter().zip(outputs);
    errors.map(move |(input, output)| (input, f64::from(output) - gelu_of(f64::from(input))))
}

#[test]
fn gelu_is_exact_to_a_millionth() {
    for (input, error) in gelus(true) {
        // Of erf to 1e-6, which GELU multiplies by half of its input.
        let most = 1e-6 * f64::from(input.abs() / 2.0).max(1.0);
        assert!(error.abs() <= most, "gelu({input}) is off by {error}");
    }
}

#[test]
fn gelu_that_is_rounded_next_is_exact_to_four_digits() {
    for (input, error) in gelus(false) {
        assert!(error.abs() <= 2e-4, "gelu({input}) is off by {error}");
    }
}

#[test]
fn gelu_leaves_what_is_not_its_own_and_shows_what_is_not_a_number() {
    for exact in [true, false] {
        let mut values = [1.0; 12];
        gelu(&mut values, 2, 3, 5, exact);
        for (index, value) in values.into_iter().enumerate() {
            assert_eq!(value != 1.0, index < 10 && index % 5 < 3, "value {index}");
        }
        let mut broken = [f32::NAN, 1.0];
        gelu(&mut broken, 1, 2, 2, exact);
        assert!(broken[0].is_nan());
    }
}

#[test]
fn exponentials_are_of_the_columns_alone_and_show_what_is_not_a_number() {
    let stride = F32::new().panel_width();
    let columns = stride - 1;
    // From the largest on: as scores are, and far from 0 on either side.
    for (largest, exact, most) in [
        (3.0, true, 2e-7),
        (3.0, false, 1e-4),
        (-4096.0, true, 2e-7),
        (-4096.0, false, 1e-4),
        (65_536.0, false, 1e-4),
    ] {
        // In steps that f32 has there.
        let score = |column: usize| largest - (100 * column / columns) as f32;
        let mut values: Vec<f32> = (0..columns).map(score).chain([f32::NAN]).collect();
        values.extend((0..stride).map(|column| if column == 1 { f32::NAN } else { 0.0 }));
        let mut sums = [0.0; 2];
        exponentials(&mut values, columns, stride, &mut sums, exact);
        let mut sum = 0.0;
        for (column, value) in values[..columns].iter().enumerate() {
            let right = f64::from(score(column) - score(0)).exp();
            sum += right;
            let error = (f64::from(*value) - right).abs();
            assert!(error <= most * right + 5e-38, "{value} is not {right}");
        }
        assert_eq!(values[columns], 0.0);
        assert!((f64::from(sums[0]) - sum).abs() < 2.0 * most * sum, "{} is not {sum}", sums[0]);
        assert!(sums[1].is_nan());
    }
}

/// Attention of all heads for the rows from `first` on, with queries, keys and values as `kernel`
/// reads them, in memory that a longer sequence of what is not a number has been in.
fn attend<A: Unscaled>(kernel: A, qkv: &[f32], first: usize, shape: Shape) -> Vec<f32> {
    let Shape { hidden, head_size, stride } = shape;
    let mut attention = Attention::new(kernel);
    let mut broken = vec![A::Activation::default(); qkv.len() + 33 * stride];
    attention.convert_part(&vec![f32::NAN; broken.len()], stride, &mut broken, stride);
    let rows = broken.len() / stride;
    attention.attend(&broken, &broken, shape, 0, &mut vec![0.0; rows * hidden]);
    let mut converted = vec![A::Activation::default(); qkv.len()];
    attention.convert_part(qkv, stride, &mut converted, stride);
    let length = qkv.len() / stride;
    let mut context = vec![f32::NAN; (length - first) * hidden];
    for head in 0..hidden / head_size {
        attention.attend(&converted, &converted[first * stride..], shape, head, &mut context);
    }
    context
}

proptest! {
    #[test]
    fn a_sum_is_normalised(
        values in (1_usize..70).prop_flat_map(|count| prop::collection::vec((-3.0_f32..3.0, -3.0_f32..3.0), count)),
    ) {
        let (mut row, update): (Vec<f32>, Vec<f32>) = values.into_iter().unzip();
        let count = row.len() as f64;
        let sums: Vec<f64> = row.iter().zip(&update).map(|(a, b)| f64::from(a + b)).collect();
        let mean = sums.iter().sum::<f64>() / count;
        let variance = sums.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        // A row of updates has padding after it.
        let update = [update, vec![f32::NAN; 5]].concat();
        let norm = Norm { weight: vec![2.0; row.len()], bias: vec![0.5; row.len()], epsilon: 1e-3 };
        norm.add(&mut row, &update, update.len());
        for (value, sum) in row.iter().zip(sums) {
            let expected = (sum - mean) / (variance + 1e-3).sqrt() * 2.0 + 0.5;
            prop_assert!((f64::from(*value) - expected).abs() < 1e-4, "{value} is not {expected}");
        }
    }

    #[test]
    fn attention_is_that_of_a_plain_loop(
        length in 1_usize..80, head_size in prop_oneof![1_usize..40, Just(32), Just(64)], heads in 1_usize..3,
        seed in any::<u32>(), cut in 0.0_f64..1.0,
    ) {
        let hidden = heads * head_size;
        let stride = 3 * hidden + 5;
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let qkv: Vec<f32> = (0..length * stride).map(|_| next()).collect();
        let first = (cut * length as f64) as usize;
        let shape = Shape { hidden, head_size, stride };
        let context = attend(F32::new(), &qkv, first, shape);
        #[cfg(target_arch = "x86_64")]
        {
            let near = |other: Vec<f32>| {
                // Of values between -1 and 1, which bf16 rounds by up to 1 in 512, as it does weights.
                let errors = other.into_iter().zip(&context);
                errors.map(|(one, other)| (one - other).abs()).all(|error| error < 0.02)
            };
            let avx512 = Bf16Avx512::new();
            prop_assert!(avx512.is_none_or(|kernel| near(attend(kernel, &qkv, first, shape))));
            let amx = Bf16Amx::new();
            prop_assert!(amx.is_none_or(|kernel| near(attend(kernel, &qkv, first, shape))));
        }
        let at = |token: usize, part: usize, head: usize, index: usize| {
            f64::from(qkv[token * stride + part * hidden + head * head_size + index])
        };
        for query in first..length {
            for head in 0..heads {
                let scores: Vec<f64> = (0..length)
                    .map(|key| (0..head_size).map(|i| at(query, 0, head, i) * at(key, 1, head, i)).sum::<f64>().exp())
                    .collect();
                let total: f64 = scores.iter().sum();
                for i in 0..head_size {
                    let mixed: f64 = (0..length).map(|token| scores[token] / total * at(token, 2, head, i)).sum();
                    let value = f64::from(context[(query - first) * hidden + head * head_size + i]);
                    prop_assert!((value - mixed).abs() < 1e-5, "{value} is not {mixed}");
                }
            }
        }
    }
}
