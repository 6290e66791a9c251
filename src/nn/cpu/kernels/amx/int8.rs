//! int8 with AMX-INT8: `tdpbusd` adds the products of 64 unsigned and signed bytes to each of
//! 16 by 16 sums.
#![allow(unsafe_code, reason = "instructions of AMX and AVX-512, and tiles without bounds checks")]

use std::arch::x86_64::{
    _mm512_cvtepi32_ps, _mm512_fmadd_ps, _mm512_load_si512, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mul_ps, _mm512_mullo_epi32, _mm512_set1_epi32, _mm512_set1_ps, _mm512_storeu_ps,
    _mm512_sub_epi32,
};

use super::super::ahead::Ahead;
use super::super::int8::Int8Avx512Vnni;
use super::super::{Column, Kernel, Panel, Row};
use super::{
    GROUP_BYTES, ROW_BYTES, ROWS, Source, Tiles, WIDTH, clear, features, multiply_bytes, pairs,
    peak_bytes, store,
};

/// int8 with AMX. What stands around the products is that of AVX512-VNNI.
#[derive(Clone, Copy, Debug)]
pub(in super::super::super) struct Int8Amx(Int8Avx512Vnni);

impl Int8Amx {
    /// If this machine has the instructions.
    pub(in super::super::super) fn new() -> Option<Self> {
        Int8Avx512Vnni::new().filter(|_| features().int8).map(Self)
    }
}

impl Kernel for Int8Amx {
    type Activation = u8;
    type Weight = i8;
    type Scope = Scope;

    const GROUP: usize = Int8Avx512Vnni::GROUP;
    const DEPTH: usize = ROW_BYTES;
    const BLOCK: usize = 192;
    const EXACT: bool = false;
    const TO_INTEGER: Option<fn(u8) -> i32> = Some(i32::from);
    const FASTER: bool = true;

    fn name(self) -> &'static str {
        "amx-int8"
    }

    fn panel_width(self) -> usize {
        WIDTH
    }

    fn convert(self, row: &[f32], out: &mut [u8]) -> Row {
        self.0.convert(row, out)
    }

    fn convert_weights(self, row: &[f32], out: &mut [i8]) -> Column {
        self.0.convert_weights(row, out)
    }

    fn scope(self) -> Scope {
        // SAFETY: a value of `Self` exists, so the machine has AMX.
        Scope { tiles: unsafe { Tiles::new() }, sums: Sums([[0; ROWS * WIDTH]; 2]) }
    }

    fn multiply(self, scope: &mut Scope, mut panel: Panel<'_, Self>) {
        panel.check(WIDTH);
        assert!(panel.depth.is_multiple_of(Self::DEPTH), "depth {} is not padded", panel.depth);
        // SAFETY: a value of `Self` exists, so the machine has the instructions; the panel is checked.
        unsafe { multiply(scope, &mut panel) }
    }

    fn peak(self, steps: usize) -> usize {
        // SAFETY: a value of `Self` exists, so the machine has AMX.
        2 * Self::DEPTH * unsafe { peak_bytes(steps) }
    }
}

/// The tiles, and room for their sums.
pub(in super::super::super) struct Scope {
    tiles: Tiles,
    sums: Sums,
}

/// Those of two tiles of rows, a row every [`GROUP_BYTES`].
#[repr(align(64))]
struct Sums([[i32; ROWS * WIDTH]; 2]);

/// # Safety
/// `panel` is checked, and its depth whole tiles.
#[target_feature(enable = "avx512f")]
unsafe fn multiply(scope: &mut Scope, panel: &mut Panel<'_, Int8Amx>) {
    let (rows, stride) = (panel.rows.len(), panel.stride);
    let height = rows.min(ROWS);
    let Scope { tiles, sums: Sums([sums, other_sums]) } = scope;
    for (first, second) in pairs(rows, height) {
        tiles.fit(height);
        // SAFETY: `Panel::check` has seen that `activations` has `depth` bytes from `r * stride` on
        // for every row `r`, and `weights` `depth * 32`; the tiles are of the rows that the panel
        // has, and the only ones of the thread.
        unsafe {
            clear();
            let row = |row: usize| panel.activations.as_ptr().add(row * stride);
            let source = Source {
                first: row(first),
                second: second.map(row),
                stride,
                weights: panel.weights.as_ptr().cast(),
            };
            let steps = panel.depth / ROW_BYTES;
            let mut ahead = Ahead::new(panel.next, first, 2 * ROWS, rows, steps);
            for step in 0..steps {
                ahead.step(usize::MAX);
                multiply_bytes(source, step);
            }
            let (out, other_out) = (sums.as_mut_ptr().cast(), other_sums.as_mut_ptr().cast());
            store(out, second.map(|_| other_out), GROUP_BYTES);
            scale(panel, sums, first, height);
            if let Some(second) = second {
                scale(panel, other_sums, second, height);
            }
        }
    }
}

/// Takes zero points from the sums of `count` rows from `row` on, scales them and adds the bias.
///
/// # Safety
/// `panel` is checked and has the rows; `count` is at most 16.
#[target_feature(enable = "avx512f")]
unsafe fn scale(
    panel: &mut Panel<'_, Int8Amx>,
    sums: &[i32; ROWS * WIDTH],
    row: usize,
    count: usize,
) {
    // SAFETY: `Panel::check` has seen that `out` has 32 values from `r * out_stride` on for every
    // row `r`, `rows` one, and `sums`, `scales` and `bias` 32.
    unsafe {
        let column = |place: usize| {
            (
                _mm512_loadu_si512(panel.sums.as_ptr().add(place).cast()),
                _mm512_loadu_ps(panel.scales.as_ptr().add(place)),
                _mm512_loadu_ps(panel.bias.as_ptr().add(place)),
            )
        };
        let columns = [column(0), column(ROWS)];
        for index in 0..count {
            let Row { scale, zero } = *panel.rows.as_ptr().add(row + index);
            let (row_scale, zero) = (_mm512_set1_ps(scale), _mm512_set1_epi32(zero));
            let sums = sums.as_ptr().add(index * WIDTH);
            let out = panel.out.as_mut_ptr().add((row + index) * panel.out_stride);
            for (vector, (weights, scale, bias)) in columns.into_iter().enumerate() {
                let place = ROWS * vector;
                let sum = _mm512_load_si512(sums.add(place).cast());
                let sum = _mm512_sub_epi32(sum, _mm512_mullo_epi32(weights, zero));
                let scale = _mm512_mul_ps(row_scale, scale);
                let value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, bias);
                _mm512_storeu_ps(out.add(place), value);
            }
        }
    }
}
