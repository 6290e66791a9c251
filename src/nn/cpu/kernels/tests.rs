//! Every kernel of this machine against a scalar twin, over odd shapes.

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;

/// A layer and rows for it.
#[derive(Clone, Debug)]
struct Case {
    inputs: usize,
    /// `[outputs, inputs]`.
    weights: Vec<f32>,
    bias: Vec<f32>,
    /// `[rows, inputs]`.
    rows: Vec<f32>,
}

fn case() -> impl Strategy<Value = Case> {
    // Rows are of both signs alike, nearly all positive as after GELU, or all positive.
    let least = prop::sample::select(vec![-2.0_f32, -0.2, 0.5]);
    (1_usize..70, prop_oneof![1_usize..90, Just(128), Just(192)], 1_usize..70, least).prop_flat_map(
        |(rows, inputs, outputs, least)| {
            let values = |count| prop::collection::vec(-2.0_f32..2.0, count);
            let activations = prop::collection::vec(least..2.0, rows * inputs);
            (values(inputs * outputs), values(outputs), activations, any::<bool>()).prop_map(
                move |(mut weights, bias, rows, on_steps)| {
                    if on_steps {
                        put_on_steps(&mut weights, inputs);
                    }
                    Case { inputs, weights, bias, rows }
                },
            )
        },
    )
}

/// Rounds weights as the recipe does, in f16 too.
fn put_on_steps(weights: &mut [f32], inputs: usize) {
    for row in weights.chunks_exact_mut(inputs) {
        let largest = row.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let scale = f16::from_f32(largest).to_f32() / 63.0;
        for value in row {
            *value = f16::from_f32((*value / scale).round() * scale).to_f32();
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

impl Case {
    /// What `kernel` makes of the rows, `[rows, outputs]`.
    fn forward<K: Kernel>(&self, kernel: K) -> Vec<f32> {
        self.forward_rows(kernel, &self.rows)
    }

    /// The memory is one that rows which are not finite, and longer, have been in, and each row
    /// has padding after it, as another layer leaves it.
    fn forward_rows<K: Kernel>(&self, kernel: K, rows: &[f32]) -> Vec<f32> {
        self.forward_with(kernel, rows, false)
    }

    /// The same closely.
    fn forward_closely<K: Kernel>(&self, kernel: K) -> Vec<f32> {
        self.forward_with(kernel, &self.rows, true)
    }

    fn forward_with<K: Kernel>(&self, kernel: K, rows: &[f32], closely: bool) -> Vec<f32> {
        let mut input = Input::default();
        input.closely = true;
        let broken = vec![f32::NAN; 200 * 70];
        let mut out = vec![0.0; 70 * kernel.panel_width()];
        let before = Packed::new(kernel, &[1.0; 200], &[0.0], 200);
        before.forward(Operand::Values(&broken, 200), &mut out, kernel.panel_width(), &mut input);

        input.closely = closely;
        let packed = Packed::new(kernel, &self.weights, &self.bias, self.inputs);
        let stride = self.inputs + 7;
        let padded: Vec<f32> =
            rows.chunks_exact(self.inputs).flat_map(|row| [row, &[f32::NAN; 7]].concat()).collect();
        let mut out = vec![f32::NAN; padded.len() / stride * packed.width()];
        packed.forward(Operand::Values(&padded, stride), &mut out, packed.width(), &mut input);
        if K::BY_VALUE {
            // A panel's width at a time, into memory that had what is not a number.
            let width = kernel.panel_width();
            let stride = self.inputs.next_multiple_of(width) + 3 * K::GROUP;
            let broken = vec![f32::NAN; rows.len() / self.inputs * stride];
            let mut activations = vec![K::Activation::default(); broken.len()];
            kernel.convert_part(&broken, stride, &mut activations, stride);
            for first in (0..self.inputs).step_by(width) {
                let part = |row: &[f32]| {
                    let mut part = row[first..row.len().min(first + width)].to_vec();
                    part.resize(width, 0.0);
                    part
                };
                let part: Vec<f32> = rows.chunks_exact(self.inputs).flat_map(part).collect();
                kernel.convert_part(&part, width, &mut activations[first..], stride);
            }
            let converted = Operand::Converted(&activations, stride);
            let mut again = vec![f32::NAN; out.len()];
            packed.forward(converted, &mut again, packed.width(), &mut input);
            assert_eq!(bits(&again), bits(&out), "{}: converted before", kernel.name());
        }
        out.chunks_exact(packed.width()).flat_map(|row| &row[..self.bias.len()]).copied().collect()
    }

    /// The twin: every output by a loop over values that `convert` has rounded, with the largest
    /// error that the order of the sum may make.
    fn twin(&self, convert: impl Fn(f32) -> f32) -> Vec<(f64, f64)> {
        let product = |row: &[f32], weights: &[f32], bias: f32| {
            let terms = row.iter().zip(weights);
            let terms = terms.map(|(a, b)| f64::from(convert(*a)) * f64::from(convert(*b)));
            let (sum, size) =
                terms.fold((0.0, 1.0), |(sum, size), term| (sum + term, size + term.abs()));
            (sum + f64::from(bias), size * 1e-6)
        };
        let rows = self.rows.chunks_exact(self.inputs);
        rows.flat_map(|row| {
            let outputs = self.weights.chunks_exact(self.inputs).zip(&self.bias);
            outputs.map(move |(weights, bias)| product(row, weights, *bias)).collect::<Vec<_>>()
        })
        .collect()
    }

    /// The twin of int8, to the bit.
    fn twin_int8(&self) -> Vec<f32> {
        let of_row = |values: &[f32]| -> (Vec<i64>, f32) {
            let least = values.iter().copied().fold(0.0, f32::min);
            let most = values.iter().copied().fold(0.0, f32::max);
            let scale = most / 255.0 - least / 255.0;
            let zero = steps(-least, scale);
            let byte = |value: &f32| (steps(*value, scale) + zero).clamp(0, 255) - zero;
            (values.iter().map(byte).collect(), scale)
        };
        let columns: Vec<_> = self.weights.chunks_exact(self.inputs).map(weight_steps).collect();
        let mut out = Vec::new();
        for row in self.rows.chunks_exact(self.inputs) {
            let (row, row_scale) = of_row(row);
            for ((weights, scale), bias) in columns.iter().zip(&self.bias) {
                let sum: i64 = row.iter().zip(weights).map(|(a, b)| a * b).sum();
                out.push((sum as f32).mul_add(row_scale * scale, *bias));
            }
        }
        out
    }
}

fn inverse(scale: f32) -> f32 {
    if scale > f32::MIN_POSITIVE { scale.recip() } else { 0.0 }
}

fn steps(value: f32, scale: f32) -> i64 {
    (value * inverse(scale)).round_ties_even() as i64
}

/// The weights of one output in steps, and how large these are.
fn weight_steps(values: &[f32]) -> (Vec<i64>, f32) {
    let largest = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let small = largest / 63.0;
    let off = |value: &f32| (value * inverse(small) - steps(*value, small) as f32).abs();
    let on_steps = values.iter().all(|value| off(value) < 0.0625);
    let scale = if on_steps { small } else { largest / 127.0 };
    (values.iter().map(|value| steps(*value, scale)).collect(), scale)
}

/// Whether every output is as near to the twin's as it must be.
fn near(outputs: &[f32], twin: &[(f64, f64)]) -> bool {
    outputs.len() == twin.len()
        && outputs
            .iter()
            .zip(twin)
            .all(|(out, (value, error))| (f64::from(*out) - value).abs() <= *error)
}

/// Calls `$check` with each kernel of int8 that this machine has.
macro_rules! with_int8 {
    ($kernel:ident => $check:expr) => {{
        let $kernel = Int8;
        $check;
        #[cfg(target_arch = "x86_64")]
        {
            if let Some($kernel) = Int8Avx2::new() {
                $check;
            }
            if let Some($kernel) = Int8AvxVnni::new() {
                $check;
            }
            if let Some($kernel) = Int8Avx512Vnni::new() {
                $check;
            }
            if let Some($kernel) = Int8Amx::new() {
                $check;
            }
        }
    }};
}

proptest! {
    #[test]
    fn f32_is_its_twin(case in case()) {
        prop_assert!(near(&case.forward(F32::new()), &case.twin(|value| value)));
    }

    #[test]
    fn bf16_is_its_twin(case in case()) {
        let twin = case.twin(|value| bf16::from_f32(value).to_f32());
        prop_assert!(near(&case.forward(Bf16::new()), &twin));
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(kernel) = Bf16Avx512::new() {
                prop_assert!(near(&case.forward(kernel), &twin));
            }
            if let Some(kernel) = Bf16Amx::new() {
                prop_assert!(near(&case.forward(kernel), &twin));
            }
        }
    }

    #[test]
    fn int8_is_its_twin_to_the_bit(case in case()) {
        let twin = case.twin_int8();
        with_int8!(kernel => prop_assert_eq!(&case.forward(kernel), &twin, "{}", kernel.name()));
    }

    #[test]
    fn int8_closely_is_off_by_what_sixteen_bits_are(case in case()) {
        let mut twin = Vec::new();
        for row in case.rows.chunks_exact(case.inputs) {
            // Half a step of the second integer, and of f32's sums.
            let range = row.iter().copied().fold(0.0, f32::max) - row.iter().copied().fold(0.0, f32::min);
            let error = f64::from(range) / 255.0 / 255.0 / 2.0 + 4e-6;
            for (weights, bias) in case.weights.chunks_exact(case.inputs).zip(&case.bias) {
                let (steps, scale) = weight_steps(weights);
                let weights = || steps.iter().map(|step| *step as f64 * f64::from(scale));
                let sum: f64 = row.iter().zip(weights()).map(|(a, b)| f64::from(*a) * b).sum();
                let size: f64 = weights().map(f64::abs).sum();
                twin.push((sum + f64::from(*bias), (size + 1.0) * error));
            }
        }
        let portable = case.forward_closely(Int8);
        prop_assert!(near(&portable, &twin));
        with_int8!(kernel => prop_assert_eq!(&case.forward_closely(kernel), &portable, "{}", kernel.name()));
        // Of what is not rounded to integers there is no closer product.
        prop_assert_eq!(case.forward_closely(Bf16::new()), case.forward(Bf16::new()));
    }

    #[test]
    fn rows_are_packed_in_the_order_of_weights(
        count in 1_usize..70, inputs in prop_oneof![1_usize..70, Just(32), Just(64)], beside in 0_usize..3,
    ) {
        fn check<A: Unscaled>(kernel: A, count: usize, inputs: usize, beside: usize) -> bool
        where
            A::Weight: PartialEq,
        {
            let stride = inputs + beside;
            let rows: Vec<f32> = (0..count * stride).map(|value| (value % 255) as f32).collect();
            let mut values = vec![A::Activation::default(); rows.len()];
            kernel.convert(&rows, &mut values);
            let mut packed = Aligned::new(0);
            let rows_of = Rows { values: &values, stride, count };
            Products::new(kernel).pack_rows(&rows_of, inputs, &mut packed);
            let (width, depth) = (kernel.panel_width(), inputs.next_multiple_of(A::GROUP));
            let place = |output: usize, input: usize| {
                let group = output / width * width * depth / A::GROUP + input / A::GROUP * width;
                (group + output % width) * A::GROUP + input % A::GROUP
            };
            (0..count).all(|output| {
                let row = &values[output * stride..][..inputs];
                let padded = row.iter().copied().chain([A::Weight::default()]).take(depth);
                padded.enumerate().all(|(input, value)| packed[place(output, input)] == value)
            })
        }
        prop_assert!(check(F32::new(), count, inputs, beside));
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(kernel) = Bf16Avx512::new() {
                prop_assert!(check(kernel, count, inputs, beside));
            }
            if let Some(kernel) = Bf16Amx::new() {
                prop_assert!(check(kernel, count, inputs, beside));
            }
        }
    }

    #[test]
    fn a_row_is_the_same_alone(case in case()) {
        fn check<K: Kernel>(case: &Case, kernel: K) -> bool {
            let alone = case.rows.chunks_exact(case.inputs);
            case.forward(kernel) == alone.flat_map(|row| case.forward_rows(kernel, row)).collect::<Vec<_>>()
        }
        prop_assert!(check(&case, F32::new()) && check(&case, Bf16::new()));
        #[cfg(target_arch = "x86_64")]
        {
            prop_assert!(Bf16Avx512::new().is_none_or(|kernel| check(&case, kernel)));
            prop_assert!(Bf16Amx::new().is_none_or(|kernel| check(&case, kernel)));
        }
        with_int8!(kernel => prop_assert!(check(&case, kernel), "{}", kernel.name()));
    }

    #[test]
    fn what_is_not_finite_is_not_hidden(case in case(), place in any::<prop::sample::Index>()) {
        fn check<K: Kernel>(case: &Case, kernel: K, row: usize) -> bool {
            let outputs = case.bias.len();
            case.forward(kernel)[row * outputs..(row + 1) * outputs].iter().all(|value| value.is_nan())
        }
        let mut case = case;
        let place = place.index(case.rows.len());
        case.rows[place] = f32::NAN;
        let row = place / case.inputs;
        prop_assert!(check(&case, F32::new(), row) && check(&case, Bf16::new(), row));
        #[cfg(target_arch = "x86_64")]
        {
            prop_assert!(Bf16Avx512::new().is_none_or(|kernel| check(&case, kernel, row)));
            prop_assert!(Bf16Amx::new().is_none_or(|kernel| check(&case, kernel, row)));
        }
        with_int8!(kernel => prop_assert!(check(&case, kernel, row), "{}", kernel.name()));
        case.rows[place] = f32::INFINITY;
        with_int8!(kernel => prop_assert!(check(&case, kernel, row), "{}", kernel.name()));
    }
}

#[test]
fn the_largest_values_do_not_overflow() {
    // An i32 must hold the depth. 4096 is an even number of groups, 4100 an odd one.
    for inputs in [4096, 4100] {
        let case = Case {
            inputs,
            weights: vec![1.0; inputs * 3],
            bias: vec![0.0; 3],
            rows: vec![1.0; inputs * 2],
        };
        let negative = Case { rows: vec![-1.0; inputs * 2], ..case.clone() };
        // One weight between two of the 63 steps, and the others take 127.
        let mut wide = case.clone();
        wide.weights.iter_mut().step_by(inputs).for_each(|weight| *weight = 0.5);
        let less = Case { weights: vec![-1.0; inputs * 3], ..case.clone() };
        let sum = inputs as f32;
        let sums = [(&case, sum), (&negative, -sum), (&less, -sum), (&wide, sum - 0.5)];
        with_int8!(kernel => for (case, sum) in sums {
            let outputs = case.forward(kernel);
            assert!(outputs.iter().all(|out| (out - sum).abs() < 0.01), "{}: {outputs:?}", kernel.name());
        });
    }
}

#[test]
fn values_too_small_to_tell_apart_are_zero() {
    let tiny = f32::MIN_POSITIVE / 2.0;
    let case = Case { inputs: 5, weights: vec![tiny; 5], bias: vec![0.5], rows: vec![tiny; 10] };
    with_int8!(kernel => assert_eq!(case.forward(kernel), [0.5, 0.5], "{}", kernel.name()));
}

#[test]
fn tiles_are_even_and_cover_every_row() {
    for rows in 0..100 {
        let tiles: Vec<_> = tiles::tiles(rows, 6).collect();
        let next = tiles.iter().fold(0, |next, (row, height)| {
            assert_eq!(*row, next);
            next + height
        });
        let heights = tiles.iter().map(|(_, height)| *height);
        assert_eq!(next, rows);
        assert!(heights.clone().all(|height| (1..=6).contains(&height)));
        assert!(heights.clone().max().unwrap_or(0) <= heights.min().unwrap_or(0) + 1);
    }
}
