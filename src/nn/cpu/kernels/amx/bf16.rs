//! bf16 with AMX-BF16: `tdpbf16ps` adds the products of 32 pairs to each of 16 by 16 sums in f32.
#![allow(unsafe_code, reason = "instructions of AMX, and tiles without bounds checks")]

use half::bf16;

use super::super::ahead::Ahead;
use super::super::bf16::Bf16Avx512;
use super::super::{Column, Kernel, Panel, Row, Rows, Unscaled};
use super::{
    ROW_BYTES, ROWS, Source, Tiles, WIDTH, features, multiply_bf16, pairs, peak_bf16, start_from,
    store,
};

/// bf16 with AMX. What stands around the products is that of AVX512-BF16.
#[derive(Clone, Copy, Debug)]
pub(in super::super::super) struct Bf16Amx(Bf16Avx512);

impl Bf16Amx {
    /// If this machine has the instructions.
    pub(in super::super::super) fn new() -> Option<Self> {
        Bf16Avx512::new().filter(|_| features().bf16).map(Self)
    }
}

impl Kernel for Bf16Amx {
    type Activation = bf16;
    type Weight = bf16;
    type Scope = Tiles;

    const GROUP: usize = Bf16Avx512::GROUP;
    const DEPTH: usize = ROW_BYTES / size_of::<bf16>();
    const BLOCK: usize = 192;
    const EXACT: bool = false;
    const BY_VALUE: bool = true;
    const FASTER: bool = true;

    fn name(self) -> &'static str {
        "amx-bf16"
    }

    fn panel_width(self) -> usize {
        WIDTH
    }

    fn convert(self, row: &[f32], out: &mut [bf16]) -> Row {
        self.0.convert(row, out)
    }

    fn convert_part(self, values: &[f32], width: usize, out: &mut [bf16], stride: usize) {
        self.0.convert_part(values, width, out, stride);
    }

    fn convert_weights(self, row: &[f32], out: &mut [bf16]) -> Column {
        self.0.convert_weights(row, out)
    }

    fn scope(self) -> Tiles {
        // SAFETY: a value of `Self` exists, so the machine has AMX.
        unsafe { Tiles::new() }
    }

    fn multiply(self, tiles: &mut Tiles, mut panel: Panel<'_, Self>) {
        if !panel.depth.is_multiple_of(Self::DEPTH) {
            // Queries are read in place, so a head that is not whole tiles wide cannot be padded.
            return self.0.multiply(&mut (), panel.of());
        }
        panel.check(WIDTH);
        // SAFETY: a value of `Self` exists, so the machine has the instructions; the panel is checked.
        unsafe { multiply(tiles, &mut panel) }
    }

    fn peak(self, steps: usize) -> usize {
        // SAFETY: a value of `Self` exists, so the machine has AMX.
        2 * Self::DEPTH * unsafe { peak_bf16(steps) }
    }
}

impl Unscaled for Bf16Amx {
    fn pack(self, outputs: &Rows<'_, bf16>, inputs: usize, panel: &mut [bf16]) -> usize {
        self.0.pack(outputs, inputs, panel)
    }
}

/// # Safety
/// `panel` is checked, and its depth whole tiles.
unsafe fn multiply(tiles: &mut Tiles, panel: &mut Panel<'_, Bf16Amx>) {
    let (rows, stride) = (panel.rows.len(), panel.stride);
    let height = rows.min(ROWS);
    for (first, second) in pairs(rows, height) {
        tiles.fit(height);
        // SAFETY: `Panel::check` has seen that `activations` has `depth` values from `r * stride` on
        // for every row `r`, `weights` `depth * 32`, `bias` 32, and `out` 32 from `r * out_stride`
        // on; the tiles are of the rows that the panel has, and the only ones of the thread.
        unsafe {
            start_from(panel.bias.as_ptr().cast());
            let row = |row: usize| panel.activations.as_ptr().add(row * stride).cast();
            let source = Source {
                first: row(first),
                second: second.map(row),
                stride: stride * size_of::<bf16>(),
                weights: panel.weights.as_ptr().cast(),
            };
            let steps = panel.depth / Bf16Amx::DEPTH;
            let mut ahead = Ahead::new(panel.next, first, 2 * ROWS, rows, steps);
            for step in 0..steps {
                ahead.step(usize::MAX);
                multiply_bf16(source, step);
            }
            let out = panel.out.as_mut_ptr();
            let row = |row: usize| out.add(row * panel.out_stride).cast();
            store(row(first), second.map(row), panel.out_stride * size_of::<f32>());
        }
    }
}
