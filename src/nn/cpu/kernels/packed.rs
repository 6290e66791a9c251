//! Weights packed for a kernel, and the product of rows with all of them.

use std::iter;

use super::{Aligned, Extras, Kernel, Panel, Row, row_stride};

/// The weights and the bias of a linear layer, packed for a kernel.
pub(in super::super) struct Packed<K: Kernel> {
    kernel: K,
    /// `[panels, depth / GROUP, width, GROUP]`, without what is in `extras`.
    weights: Aligned<K::Weight>,
    /// `[panels * width]`, as are the next two.
    scales: Vec<f32>,
    bias: Vec<f32>,
    sums: Vec<i32>,
    /// Of each panel, see [`Kernel::fit`].
    extras: Vec<Extras<K::Weight>>,
    inputs: usize,
    /// The inputs, padded.
    depth: usize,
}

impl<K: Kernel> Packed<K> {
    /// Packs `weights`, `[outputs, inputs]`, and `bias`, `[outputs]`.
    pub(in super::super) fn new(kernel: K, weights: &[f32], bias: &[f32], inputs: usize) -> Self {
        let (width, depth) = (kernel.panel_width(), inputs.next_multiple_of(K::DEPTH));
        let outputs = bias.len().next_multiple_of(width);
        let mut packed = Self {
            kernel,
            weights: Aligned::new(outputs * depth),
            scales: vec![0.0; outputs],
            bias: bias.to_vec(),
            sums: vec![0; outputs],
            extras: Vec::with_capacity(outputs / width),
            inputs,
            depth,
        };
        packed.bias.resize(outputs, 0.0);
        let mut converted = vec![K::Weight::default(); depth];
        let panels = packed.weights.chunks_exact_mut(width * depth);
        let columns = packed.scales.chunks_mut(width).zip(packed.sums.chunks_mut(width));
        for ((panel, rows), (scales, sums)) in
            panels.zip(weights.chunks(width * inputs)).zip(columns)
        {
            let columns = rows.chunks_exact(inputs).zip(scales).zip(sums);
            for (lane, ((row, scale), sum)) in columns.enumerate() {
                let column = kernel.convert_weights(row, &mut converted);
                (*scale, *sum) = (column.scale, column.sum);
                // One group of this output in every group of the panel.
                let places = panel.chunks_exact_mut(K::GROUP).skip(lane).step_by(width);
                for (place, group) in places.zip(converted.chunks_exact(K::GROUP)) {
                    place.copy_from_slice(group);
                }
            }
            packed.extras.push(kernel.fit(panel));
        }
        packed
    }

    /// Values that a row of results has: the outputs, padded to whole panels.
    pub(in super::super) fn width(&self) -> usize {
        self.bias.len()
    }

    /// The kernel that weights are packed for.
    pub(in super::super) fn kernel(&self) -> K {
        self.kernel
    }

    /// The layer of every row into `out`, `[rows, width]`, a row every `out_stride` values.
    pub(in super::super) fn forward(
        &self,
        rows: Operand<'_, K>,
        out: &mut [f32],
        out_stride: usize,
        input: &mut Input<K>,
    ) {
        self.by_panel(rows, input, |first, multiply| {
            multiply(out.get_mut(first..).unwrap_or_default(), out_stride);
        });
    }

    /// The layer of every row, a panel at a time: `each` gets the place of the panel's first output in
    /// a row of results, and what multiplies all rows with it, into a slice with a row of results
    /// every so many values.
    pub(in super::super) fn by_panel(
        &self,
        rows: Operand<'_, K>,
        input: &mut Input<K>,
        mut each: impl FnMut(usize, &mut dyn FnMut(&mut [f32], usize)),
    ) {
        let closely = K::TO_INTEGER.filter(|_| input.closely);
        let Input { converted, rounded_off, row, expanded, more, zeros, .. } = input;
        let (activations, stride) = match rows.converted() {
            Some((activations, stride)) => {
                converted.rows.clear();
                converted.rows.resize(activations.len() / stride, Row::PLAIN);
                (activations, stride)
            }
            None => {
                let rows = rows.values().filter_map(|row| row.get(..self.inputs));
                converted.convert(self.kernel, rows.clone(), self.depth);
                if let Some(to_integer) = closely {
                    rounded_off.convert_rest(
                        self.kernel,
                        rows,
                        converted,
                        self.depth,
                        to_integer,
                        row,
                    );
                }
                (&*converted.values, row_stride::<K::Activation>(self.depth))
            }
        };
        let mut scope = self.kernel.scope();
        let width = self.kernel.panel_width();
        if closely.is_some() {
            zeros.resize(width, 0.0);
            more.resize(converted.rows.len() * width, 0.0);
        }
        let size = width * self.depth;
        let weights = self.weights.chunks_exact(size);
        let nexts = self.weights.chunks_exact(size).skip(1).chain(iter::once(&[][..]));
        let scales = self.scales.chunks_exact(width);
        let columns = scales.zip(self.bias.chunks_exact(width)).zip(self.sums.chunks_exact(width));
        let panels = weights.zip(nexts).zip(columns).zip(&self.extras);
        for (panel, (((weights, next), ((scales, bias), sums)), extras)) in panels.enumerate() {
            let mut multiply = |activations, rows, bias, next, out: &mut [f32], out_stride| {
                let (kernel, depth, expanded) = (self.kernel, self.depth, &mut *expanded);
                kernel.multiply(
                    &mut scope,
                    Panel {
                        activations,
                        stride,
                        rows,
                        depth,
                        weights,
                        next,
                        scales,
                        bias,
                        sums,
                        extras,
                        out,
                        out_stride,
                        expanded,
                    },
                );
            };
            each(panel * width, &mut |out, out_stride| {
                multiply(activations, &converted.rows, bias, next, &mut *out, out_stride);
                if closely.is_some() {
                    multiply(&rounded_off.values, &rounded_off.rows, zeros, &[], more, width);
                    for (out, more) in out.chunks_mut(out_stride).zip(more.chunks_exact(width)) {
                        out.iter_mut().zip(more).for_each(|(out, more)| *out += more);
                    }
                }
            });
        }
    }
}

/// The rows that a layer is applied to, and how many values are from one to the next.
#[derive(Clone, Copy)]
pub(in super::super) enum Operand<'a, K: Kernel> {
    /// Of each, the first are the inputs.
    Values(&'a [f32], usize),
    /// As the kernel reads them, which converts [by value](Kernel::BY_VALUE): of each, the first are
    /// the inputs and the padding of the depth.
    Converted(&'a [K::Activation], usize),
}

impl<'a, K: Kernel> Operand<'a, K> {
    /// Those that need not be converted.
    fn converted(self) -> Option<(&'a [K::Activation], usize)> {
        match self {
            Self::Values(values, stride) => Some((K::as_activations(values)?, stride)),
            Self::Converted(activations, stride) => Some((activations, stride)),
        }
    }

    /// Those that need to be.
    fn values(self) -> impl Iterator<Item = &'a [f32]> + Clone {
        let (values, stride) = match self {
            Self::Values(values, stride) => (values, stride),
            Self::Converted(_, stride) => (&[][..], stride),
        };
        values.chunks_exact(stride)
    }
}

/// Memory for rows that are converted for a kernel, and for the kernel itself.
pub(in super::super) struct Input<K: Kernel> {
    /// Whether products are to be of activations in two integers each, if they are integers: the
    /// second is for what the first has rounded off, which makes some 16 bits of 8.
    pub(in super::super) closely: bool,
    converted: Converted<K>,
    /// What conversion has rounded off, as rows of its own.
    rounded_off: Converted<K>,
    /// `[inputs]`.
    row: Vec<f32>,
    expanded: Vec<f32>,
    /// The products of what was rounded off: `[rows, panel width]`.
    more: Vec<f32>,
    /// `[panel width]`.
    zeros: Vec<f32>,
}

impl<K: Kernel> Default for Input<K> {
    fn default() -> Self {
        Self {
            closely: false,
            converted: Converted::default(),
            rounded_off: Converted::default(),
            row: Vec::new(),
            expanded: Vec::new(),
            more: Vec::new(),
            zeros: Vec::new(),
        }
    }
}

/// Rows converted for a kernel.
struct Converted<K: Kernel> {
    /// `[rows, depth]`, a row every [`row_stride`] values.
    values: Aligned<K::Activation>,
    /// `[rows]`.
    rows: Vec<Row>,
}

impl<K: Kernel> Converted<K> {
    /// Converts rows, each padded to `depth`.
    fn convert<'a>(
        &mut self,
        kernel: K,
        rows: impl Iterator<Item = &'a [f32]> + Clone,
        depth: usize,
    ) {
        let stride = row_stride::<K::Activation>(depth);
        self.values.at_least(rows.clone().count() * stride);
        self.rows.clear();
        for (row, values) in rows.zip(self.values.chunks_exact_mut(stride)) {
            self.rows.push(kernel.convert(row, values.get_mut(..depth).unwrap_or_default()));
        }
    }

    /// Converts what is left of each row of which `converted` has the conversion.
    fn convert_rest<'a>(
        &mut self,
        kernel: K,
        rows: impl Iterator<Item = &'a [f32]>,
        converted: &Self,
        depth: usize,
        to_integer: fn(K::Activation) -> i32,
        rest: &mut Vec<f32>,
    ) {
        let stride = row_stride::<K::Activation>(depth);
        self.values.at_least(converted.rows.len() * stride);
        self.rows.clear();
        let converted = converted.values.chunks_exact(stride).zip(&converted.rows);
        for ((row, (values, of)), out) in
            rows.zip(converted).zip(self.values.chunks_exact_mut(stride))
        {
            let out = out.get_mut(..depth).unwrap_or_default();
            rest.clear();
            rest.extend(row.iter().zip(values).map(|(value, converted)| {
                value - (to_integer(*converted) - of.zero) as f32 * of.scale
            }));
            self.rows.push(kernel.convert(rest, out));
        }
    }
}

impl<K: Kernel> Default for Converted<K> {
    fn default() -> Self {
        Self { values: Aligned::new(0), rows: Vec::new() }
    }
}
