//! Rows of bf16 to the columns of a panel: pairs of values change places as `u32`, 16 by 16.
#![allow(unsafe_code, reason = "instructions of AVX-512, and blocks without bounds checks")]

use std::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use half::bf16;

use super::{Rows, holds};

/// Sides of a block, in pairs.
const SIDE: usize = 16;

/// Packs as many outputs as whole blocks have, if `inputs` are whole blocks too, and returns how
/// many: pair `p` of output `o` goes to the pair `o` of the panel's group `p`, one every `stride`
/// values.
#[target_feature(enable = "avx512f")]
pub(super) fn pack(
    outputs: &Rows<'_, bf16>,
    inputs: usize,
    panel: &mut [bf16],
    stride: usize,
) -> usize {
    if !inputs.is_multiple_of(2 * SIDE) {
        return 0;
    }
    let count = outputs.count - outputs.count % SIDE;
    for output in (0..count).step_by(SIDE) {
        for input in (0..inputs).step_by(2 * SIDE) {
            let rows = outputs.values.get(output * outputs.stride + input..).unwrap_or_default();
            let columns = panel.get_mut(input / 2 * stride + 2 * output..).unwrap_or_default();
            transpose(rows, outputs.stride, columns, stride);
        }
    }
    count
}

/// One block: `rows` has one every `from` values, and `columns`, the panel's groups, one every `to`.
///
/// # Panics
/// If either has fewer than that.
#[target_feature(enable = "avx512f")]
fn transpose(rows: &[bf16], from: usize, columns: &mut [bf16], to: usize) {
    assert!(holds(rows, SIDE, from, 2 * SIDE));
    assert!(holds(columns, SIDE, to, 2 * SIDE));
    // SAFETY: there are 32 values, of 64 bytes, from each row's first on, as asserted.
    let row = |row: usize| unsafe { _mm512_loadu_si512(rows.as_ptr().add(row * from).cast()) };
    let mut fours = [[_mm512_setzero_si512(); 4]; 4];
    for (fours, first) in fours.iter_mut().zip((0..SIDE).step_by(4)) {
        *fours = transpose_quarters([row(first), row(first + 1), row(first + 2), row(first + 3)]);
    }
    // A quarter of each of four vectors is a column.
    let [first, second, third, fourth] = fours;
    let parts = first.into_iter().zip(second).zip(third.into_iter().zip(fourth));
    for (place, ((a, b), (c, d))) in parts.enumerate() {
        let (even, other_even) = (even_quarters(a, b), even_quarters(c, d));
        let (odd, other_odd) = (odd_quarters(a, b), odd_quarters(c, d));
        let columns_of_quarters = [
            even_quarters(even, other_even),
            even_quarters(odd, other_odd),
            odd_quarters(even, other_even),
            odd_quarters(odd, other_odd),
        ];
        for (quarter, values) in columns_of_quarters.into_iter().enumerate() {
            let column = (4 * quarter + place) * to;
            // SAFETY: as above, for the columns.
            unsafe { _mm512_storeu_si512(columns.as_mut_ptr().add(column).cast(), values) };
        }
    }
}

/// Transposes each quarter of four vectors, 4 by 4.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (low, other_low) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (high, other_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(low, other_low),
        _mm512_unpackhi_epi64(low, other_low),
        _mm512_unpacklo_epi64(high, other_high),
        _mm512_unpackhi_epi64(high, other_high),
    ]
}

/// The first and the third quarter of `a`, then of `b`.
#[target_feature(enable = "avx512f")]
#[inline]
fn even_quarters(a: __m512i, b: __m512i) -> __m512i {
    _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b)
}

/// The second and the fourth quarter of `a`, then of `b`.
#[target_feature(enable = "avx512f")]
#[inline]
fn odd_quarters(a: __m512i, b: __m512i) -> __m512i {
    _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b)
}
