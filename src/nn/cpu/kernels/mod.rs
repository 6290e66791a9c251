//! Matrix kernels: rows of activations times a packed matrix of weights.
//!
//! A [`Kernel`] is one precision on one instruction set. Weights are packed once, when the
//! model is loaded, for the kernel that will run: in panels of as many outputs as its tile is
//! wide, each laid out in the order in which the tile reads it. A product walks the panels
//! and, within one, the rows in tiles that stay in registers over the whole depth; see
//! Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008.
//!
//! Every output is the same operations in the same order, whatever tile its row falls into,
//! so a row's result does not depend on the rows beside it. Each kernel has a scalar twin in
//! the tests, which it must equal.

mod ahead;
mod aligned;
#[cfg(target_arch = "x86_64")]
mod amx;
mod bf16;
#[cfg(test)]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod bounds_tests;
mod f32;
mod int8;
mod packed;
mod products;
#[cfg(test)]
mod tests;
mod tiles;
#[cfg(target_arch = "x86_64")]
mod transpose;

pub(super) use self::aligned::{Aligned, row_stride};
#[cfg(target_arch = "x86_64")]
pub(super) use self::amx::{Bf16Amx, Int8Amx};
pub(super) use self::bf16::Bf16;
#[cfg(target_arch = "x86_64")]
pub(super) use self::bf16::Bf16Avx512;
pub(super) use self::f32::F32;
pub(super) use self::int8::Int8;
#[cfg(target_arch = "x86_64")]
pub(super) use self::int8::{Int8Avx2, Int8Avx512Vnni, Int8AvxVnni};
pub(super) use self::packed::{Input, Operand, Packed};
pub(super) use self::products::{Products, Rows};

/// One precision on one instruction set. A value of it is the proof that this machine has
/// the instruction set.
pub(super) trait Kernel: Copy + Send + Sync + 'static {
    /// An activation as the kernel reads it.
    type Activation: Copy + Default + Send + Sync + 'static;
    /// A weight as it is stored.
    type Weight: Copy + Default + Send + Sync + 'static;
    /// What of the processor is set apart for products while a value of it lives.
    type Scope;

    /// Steps of the depth whose products one lane of an instruction adds up.
    const GROUP: usize;

    /// Steps of the depth that are read at once: a multiple of it is what depths of packed weights
    /// are padded to, and packed columns.
    const DEPTH: usize = Self::GROUP;

    /// Rows that go through a part of a layer at once, at most: what they are in the feed-forward
    /// part, four times as wide as elsewhere, should stay in the cache of a core, unless it matters
    /// more how often weights are fetched from the next one.
    const BLOCK: usize = 48;

    /// Whether activations are f32 as they are, not rounded to fewer bits.
    const EXACT: bool;

    /// Whether activations are converted, and one by one, whatever the others in a row are. Then the
    /// panel is a multiple of [`DEPTH`](Self::DEPTH) wide, so that a row of results has the padding
    /// of the depth that a product of them asks for.
    const BY_VALUE: bool = false;

    /// The integer that an activation is, if it is one: then what conversion has rounded off can be
    /// multiplied as well, see [`Input::closely`].
    const TO_INTEGER: Option<fn(Self::Activation) -> i32> = None;

    /// Whether it is faster than the kernel of f32 on the same machine.
    const FASTER: bool;

    /// The instruction set, as reports call it.
    fn name(self) -> &'static str;

    /// Outputs in a panel.
    fn panel_width(self) -> usize;

    /// Converts a row of activations for the kernel. `out` may be longer than `row`: the rest
    /// is padding, and finite.
    fn convert(self, row: &[f32], out: &mut [Self::Activation]) -> Row;

    /// Values as the kernel reads activations, if that is what they are: then none is converted.
    fn as_activations(_values: &[f32]) -> Option<&[Self::Activation]> {
        None
    }

    /// Activations as the f32 that they are, if so: then a product can be written to them.
    fn as_f32_mut(_activations: &mut [Self::Activation]) -> Option<&mut [f32]> {
        None
    }

    /// Converts rows of `width` values, one after the other, to the first values of rows of `out`,
    /// which has one every `stride`: of a kernel that converts [by value](Self::BY_VALUE), some of
    /// the values of its rows.
    fn convert_part(
        self,
        values: &[f32],
        width: usize,
        out: &mut [Self::Activation],
        stride: usize,
    ) {
        for (row, out) in values.chunks_exact(width).zip(out.chunks_mut(stride)) {
            if let Some(out) = out.get_mut(..width) {
                self.convert(row, out);
            }
        }
    }

    /// Converts the weights of one output. `out` may be longer than `row`: the rest is 0.
    fn convert_weights(self, row: &[f32], out: &mut [Self::Weight]) -> Column;

    /// Takes from a panel's weights, `[depth / GROUP, width, GROUP]`, what the kernel cannot
    /// multiply together with the rest.
    fn fit(self, _weights: &mut [Self::Weight]) -> Extras<Self::Weight> {
        Extras::default()
    }

    /// Begins a few products, one after the other on this thread.
    ///
    /// # Panics
    /// If there is another scope on this thread, and what it sets apart is there once.
    fn scope(self) -> Self::Scope;

    /// Multiplies rows of activations with one panel.
    ///
    /// # Panics
    /// If the slices of `panel` are shorter than its shape says.
    fn multiply(self, scope: &mut Self::Scope, panel: Panel<'_, Self>);

    /// Runs the kernel's multiply-adds `steps` times on registers alone, as many at a time as
    /// keep the multipliers busy. Returns how many operations that were: a multiplication and
    /// the addition of its product are two.
    fn peak(self, steps: usize) -> usize;
}

/// A kernel that can multiply activations with each other: weights are as activations are, and
/// neither is scaled. Its group is of 1 or 2, and its panel a multiple of its depth wide.
pub(super) trait Unscaled: Kernel<Weight = <Self as Kernel>::Activation> {
    /// Packs the first outputs of a panel, as many as are faster together: each of `outputs` has
    /// the weights of one as its first `inputs` values. Returns how many it has packed; others
    /// are packed value by value.
    fn pack(
        self,
        _outputs: &Rows<'_, Self::Activation>,
        _inputs: usize,
        _panel: &mut [Self::Weight],
    ) -> usize {
        0
    }
}

/// Sums that [`Kernel::peak`] works on side by side.
const PEAK_SUMS: usize = 12;

/// What is known of a row of activations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// By which its products are to be multiplied.
    pub(super) scale: f32,
    /// The integer that stands for 0, if they are unsigned integers.
    pub(super) zero: i32,
}

impl Row {
    /// Of activations that are not scaled.
    const PLAIN: Self = Self { scale: 1.0, zero: 0 };
}

/// What is known of the weights of one output.
pub(super) struct Column {
    /// By which its products are to be multiplied.
    pub(super) scale: f32,
    /// Sum of the weights as converted, if they are integers.
    pub(super) sum: i32,
}

impl Column {
    /// Of weights that are not integers.
    const PLAIN: Self = Self { scale: 1.0, sum: 0 };
}

/// Weights that are to be added to those of a panel.
#[derive(Default)]
pub(super) struct Extras<W> {
    /// The groups of the depth that they belong to; one may be there several times.
    groups: Vec<usize>,
    /// `[groups, width, GROUP]`.
    weights: Vec<W>,
}

/// One product: rows of activations with one panel of weights. For every row `r` and output
/// `j` a kernel writes
/// `sum((activations[r] - zero[r]) * weights[j]) * (scale[r] * scales[j]) + bias[j]`
/// to `out[r * out_stride + j]`, where the weights are those of the panel and its extras.
pub(super) struct Panel<'a, K: Kernel> {
    /// `[rows, depth]`, a row every `stride` values.
    pub(super) activations: &'a [K::Activation],
    pub(super) stride: usize,
    /// `[rows]`.
    pub(super) rows: &'a [Row],
    /// Steps of the depth, a multiple of [`Kernel::GROUP`].
    pub(super) depth: usize,
    /// `[depth / GROUP, width, GROUP]`.
    pub(super) weights: &'a [K::Weight],
    /// Those of the panel after it, which may be fetched meanwhile; none if there is none.
    pub(super) next: &'a [K::Weight],
    /// `[width]`, as are the next two.
    pub(super) scales: &'a [f32],
    pub(super) bias: &'a [f32],
    /// See [`Column::sum`].
    pub(super) sums: &'a [i32],
    /// See [`Kernel::fit`].
    pub(super) extras: &'a Extras<K::Weight>,
    /// `[rows, width]`, a row every `out_stride` values.
    pub(super) out: &'a mut [f32],
    pub(super) out_stride: usize,
    /// Room for widened weights.
    pub(super) expanded: &'a mut Vec<f32>,
}

impl<'a, K: Kernel> Panel<'a, K> {
    /// The same for another kernel that lays out panels as `K` does, of the same width.
    #[cfg(target_arch = "x86_64")]
    fn of<L>(self) -> Panel<'a, L>
    where
        L: Kernel<Activation = K::Activation, Weight = K::Weight>,
    {
        Panel {
            activations: self.activations,
            stride: self.stride,
            rows: self.rows,
            depth: self.depth,
            weights: self.weights,
            next: self.next,
            scales: self.scales,
            bias: self.bias,
            sums: self.sums,
            extras: self.extras,
            out: self.out,
            out_stride: self.out_stride,
            expanded: self.expanded,
        }
    }

    /// That every slice holds what a tile will read of it, on which unsafe code relies.
    fn check(&self, width: usize) {
        assert!(self.depth.is_multiple_of(K::GROUP), "depth {} is not padded", self.depth);
        assert!(holds(self.activations, self.rows.len(), self.stride, self.depth));
        assert!(holds(self.out, self.rows.len(), self.out_stride, width));
        assert!(holds(self.weights, self.depth, width, width));
        assert!([self.scales.len(), self.bias.len(), self.sums.len()].iter().all(|&n| n >= width));
        let Extras { groups, weights } = self.extras;
        assert!(groups.iter().all(|&group| group < self.depth / K::GROUP));
        assert!(holds(weights, groups.len(), width * K::GROUP, width * K::GROUP));
    }
}

/// Whether `values` hold `rows` rows of `length`, one every `stride`.
fn holds<T>(values: &[T], rows: usize, stride: usize, length: usize) -> bool {
    let Some(last) = rows.checked_sub(1) else { return true };
    let end = last.checked_mul(stride).and_then(|start| start.checked_add(length));
    end.is_some_and(|end| end <= values.len())
}
