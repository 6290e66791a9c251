//! bf16: weights and activations rounded to bf16, sums in f32.
#![allow(unsafe_code, reason = "instructions of AVX512-BF16, and tiles without bounds checks")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
};

#[cfg(target_arch = "x86_64")]
use std::hint::black_box;

use half::bf16;
#[cfg(target_arch = "x86_64")]
use half::slice::HalfFloatSliceExt;

#[cfg(target_arch = "x86_64")]
use super::ahead::Ahead;
use super::f32::{F32, Product};
#[cfg(target_arch = "x86_64")]
use super::tiles::{tiles, with_height};
use super::{Column, Kernel, Panel, Row};
#[cfg(target_arch = "x86_64")]
use super::{PEAK_SUMS, Rows, Unscaled, transpose};

/// bf16 on any machine: half the memory of f32 for the weights, which are widened a panel at
/// a time, and the speed of f32.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Bf16(F32);

impl Bf16 {
    /// For the vectors of this machine.
    pub(in super::super) fn new() -> Self {
        Self(F32::new())
    }
}

impl Kernel for Bf16 {
    type Activation = f32;
    type Weight = bf16;
    type Scope = ();

    const GROUP: usize = 1;
    const EXACT: bool = false;
    const BY_VALUE: bool = true;
    const FASTER: bool = false;

    fn name(self) -> &'static str {
        self.0.name()
    }

    fn panel_width(self) -> usize {
        self.0.panel_width()
    }

    fn convert(self, row: &[f32], out: &mut [f32]) -> Row {
        for (out, &value) in out.iter_mut().zip(row) {
            *out = bf16::from_f32(value).to_f32();
        }
        Row::PLAIN
    }

    fn convert_weights(self, row: &[f32], out: &mut [bf16]) -> Column {
        convert_weights(row, out)
    }

    fn scope(self) {}

    fn multiply(self, (): &mut (), panel: Panel<'_, Self>) {
        let width = self.panel_width();
        panel.check(width);
        let Panel { activations, stride, depth, weights, bias, out, out_stride, expanded, .. } =
            panel;
        expanded.clear();
        // bf16 is the upper half of an f32.
        let narrow = weights.iter().take(depth * width);
        expanded.extend(narrow.map(|value| f32::from_bits(u32::from(value.to_bits()) << 16)));
        let (rows, weights) = (panel.rows.len(), expanded.as_slice());
        self.0.product(Product {
            activations,
            stride,
            rows,
            depth,
            weights,
            next: &[],
            bias,
            out,
            out_stride,
        });
    }

    fn peak(self, steps: usize) -> usize {
        self.0.peak(steps)
    }
}

fn convert_weights(row: &[f32], out: &mut [bf16]) -> Column {
    out.fill(bf16::ZERO);
    for (out, &value) in out.iter_mut().zip(row) {
        *out = bf16::from_f32(value);
    }
    Column::PLAIN
}

/// bf16 with `vdpbf16ps` of AVX512-BF16, which adds two products to an f32.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Bf16Avx512(());

#[cfg(target_arch = "x86_64")]
impl Bf16Avx512 {
    /// If this machine has the instructions.
    pub(in super::super) fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16");
        has.then_some(Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel for Bf16Avx512 {
    type Activation = bf16;
    type Weight = bf16;
    type Scope = ();

    const GROUP: usize = 2;
    const EXACT: bool = false;
    const BY_VALUE: bool = true;
    const FASTER: bool = true;

    fn name(self) -> &'static str {
        "avx512-bf16"
    }

    fn panel_width(self) -> usize {
        32
    }

    fn convert(self, row: &[f32], out: &mut [bf16]) -> Row {
        let (out, padding) = out.split_at_mut(row.len());
        // SAFETY: a value of `Self` exists, so the machine has the instructions.
        unsafe { narrow(row, out) };
        padding.fill(bf16::ZERO);
        Row::PLAIN
    }

    /// Rows are short here, so there is no call for each.
    fn convert_part(self, values: &[f32], width: usize, out: &mut [bf16], stride: usize) {
        // SAFETY: a value of `Self` exists, so the machine has the instructions.
        unsafe { narrow_rows(values, width, out, stride) }
    }

    fn convert_weights(self, row: &[f32], out: &mut [bf16]) -> Column {
        convert_weights(row, out)
    }

    fn scope(self) {}

    fn multiply(self, (): &mut (), mut panel: Panel<'_, Self>) {
        panel.check(self.panel_width());
        // SAFETY: a value of `Self` exists, so the machine has the instructions; the panel is checked.
        unsafe { multiply(&mut panel) }
    }

    fn peak(self, steps: usize) -> usize {
        // SAFETY: a value of `Self` exists, so the machine has the instructions.
        unsafe { dots(steps) };
        2 * 2 * steps * SUMS * 16
    }
}

#[cfg(target_arch = "x86_64")]
impl Unscaled for Bf16Avx512 {
    fn pack(self, outputs: &Rows<'_, bf16>, inputs: usize, panel: &mut [bf16]) -> usize {
        // SAFETY: a value of `Self` exists, so the machine has AVX-512.
        unsafe { transpose::pack(outputs, inputs, panel, 2 * self.panel_width()) }
    }
}

/// Sums that the peak is measured with: as many as a tile has, since an instruction takes longer
/// than those of f32 and more are needed to keep the multipliers busy.
#[cfg(target_arch = "x86_64")]
const SUMS: usize = 2 * PEAK_SUMS;

/// Rounds values to as many of `out`; what is subnormal may become 0, as which products take it.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn narrow(values: &[f32], out: &mut [bf16]) {
    let (values, rest) = values.as_chunks::<32>();
    let (outs, others) = out.as_chunks_mut::<32>();
    for (values, out) in values.iter().zip(outs) {
        // SAFETY: both arrays have 32 values; __m512bh is 64 bytes.
        unsafe {
            let (low, high) = (values.as_ptr(), values.as_ptr().add(16));
            let both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(high), _mm512_loadu_ps(low));
            out.as_mut_ptr().cast::<__m512bh>().write_unaligned(both);
        }
    }
    others.convert_from_f32_slice(rest);
}

/// Rows of `width` values to the first values of those of `out`, one every `stride`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn narrow_rows(values: &[f32], width: usize, out: &mut [bf16], stride: usize) {
    for (row, out) in values.chunks_exact(width).zip(out.chunks_mut(stride)) {
        if let Some(out) = out.get_mut(..width) {
            narrow(row, out);
        }
    }
}

/// See [`Kernel::peak`]. Sums are activations too, or one product would do for all.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dots(steps: usize) {
    let mut sums = [_mm512_setzero_ps(); SUMS];
    // SAFETY: __m512 and __m512bh are the same 64 bytes.
    let vector = |values: __m512| unsafe { std::mem::transmute::<__m512, __m512bh>(values) };
    let weights = vector(black_box(_mm512_setzero_ps()));
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, vector(*sum), weights);
        }
    }
    black_box(sums);
}

/// # Safety
/// `panel` is checked.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply(panel: &mut Panel<'_, Bf16Avx512>) {
    for (row, height) in tiles(panel.rows.len(), 12) {
        // SAFETY: the tiles are of the rows that the panel has.
        with_height!(12, height, HEIGHT => unsafe { tile::<HEIGHT>(panel, row) });
    }
}

/// `HEIGHT` rows from `row` on.
///
/// # Safety
/// `panel` is checked and has the rows.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile<const HEIGHT: usize>(panel: &mut Panel<'_, Bf16Avx512>, row: usize) {
    let mut sums = [[_mm512_setzero_ps(); 2]; HEIGHT];
    // SAFETY: `Panel::check` has seen that `activations` has `depth` values, an even number,
    // from `r * stride` on for every row `r`, `weights` `depth * 32`, `out` 32 from
    // `r * out_stride` on, and `bias` 32; `row + HEIGHT` is at most the number of rows.
    // __m512i and __m512bh are the same 64 bytes.
    unsafe {
        let vector = |values: __m512i| std::mem::transmute::<__m512i, __m512bh>(values);
        let activations = panel.activations.as_ptr().add(row * panel.stride);
        let mut weights = panel.weights.as_ptr();
        let mut ahead = Ahead::new(panel.next, row, HEIGHT, panel.rows.len(), panel.depth / 2);
        for step in (0..panel.depth).step_by(2) {
            ahead.step(2);
            let columns = [
                vector(_mm512_loadu_si512(weights.cast())),
                vector(_mm512_loadu_si512(weights.add(32).cast())),
            ];
            for (height, sums) in sums.iter_mut().enumerate() {
                let pair = activations.add(height * panel.stride + step).cast::<i32>();
                let pair = vector(_mm512_set1_epi32(pair.read_unaligned()));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = _mm512_dpbf16_ps(*sum, pair, column);
                }
            }
            weights = weights.add(64);
        }
        for (height, sums) in sums.into_iter().enumerate() {
            let out = panel.out.as_mut_ptr().add((row + height) * panel.out_stride);
            for (vector, sum) in sums.into_iter().enumerate() {
                let bias = _mm512_loadu_ps(panel.bias.as_ptr().add(16 * vector));
                _mm512_storeu_ps(out.add(16 * vector), _mm512_add_ps(sum, bias));
            }
        }
    }
}
