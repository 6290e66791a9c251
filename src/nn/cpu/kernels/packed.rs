//! Weights packed for a kernel, and the product of rows with all of them.

use super::{Aligned, Extras, Kernel, Panel, Row};

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

    /// The layer of every row into `out`, `[rows, width]`: `rows` has one every `stride` values,
    /// which may be longer than the inputs. After each panel `then` gets its
    /// outputs, while they are in the cache: of all rows, from the panel's first output on,
    /// with [`width`](Self::width) values from one row to the next; and how many they are.
    pub(in super::super) fn forward(
        &self,
        rows: &[f32],
        stride: usize,
        out: &mut [f32],
        input: &mut Input<K>,
        mut then: impl FnMut(&mut [f32], usize),
    ) {
        let closely = K::TO_INTEGER.filter(|_| input.closely);
        let Input { converted, rounded_off, row, expanded, more, zeros, .. } = input;
        let (activations, stride) = match K::as_activations(rows) {
            Some(activations) => {
                converted.rows.clear();
                converted.rows.resize(rows.len() / stride, Row::PLAIN);
                (activations, stride)
            }
            None => {
                let rows = rows.chunks_exact(stride).filter_map(|row| row.get(..self.inputs));
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
                (&*converted.values, self.depth)
            }
        };
        let mut scope = self.kernel.scope();
        let width = self.kernel.panel_width();
        if closely.is_some() {
            zeros.resize(width, 0.0);
            more.resize(converted.rows.len() * width, 0.0);
        }
        let weights = self.weights.chunks_exact(width * self.depth);
        let scales = self.scales.chunks_exact(width);
        let columns = scales.zip(self.bias.chunks_exact(width)).zip(self.sums.chunks_exact(width));
        let panels = weights.zip(columns).zip(&self.extras);
        for (panel, ((weights, ((scales, bias), sums)), extras)) in panels.enumerate() {
            let Some(out) = out.get_mut(panel * width..) else { return };
            let mut multiply = |(activations, stride), rows, bias, out: &mut [f32], out_stride| {
                let (kernel, depth, expanded) = (self.kernel, self.depth, &mut *expanded);
                kernel.multiply(
                    &mut scope,
                    Panel {
                        activations,
                        stride,
                        rows,
                        depth,
                        weights,
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
            multiply((activations, stride), &converted.rows, bias, &mut *out, self.width());
            if closely.is_some() {
                let rest = (&*rounded_off.values, self.depth);
                multiply(rest, &rounded_off.rows, zeros, more, width);
                for (out, more) in out.chunks_mut(self.width()).zip(more.chunks_exact(width)) {
                    out.iter_mut().zip(more).for_each(|(out, more)| *out += more);
                }
            }
            then(out, width);
        }
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
    /// `[rows, depth]`.
    values: Aligned<K::Activation>,
    /// `[rows]`.
    rows: Vec<Row>,
}

impl<K: Kernel> Converted<K> {
    /// Converts rows, padded to `depth`.
    fn convert<'a>(
        &mut self,
        kernel: K,
        rows: impl Iterator<Item = &'a [f32]> + Clone,
        depth: usize,
    ) {
        self.values.at_least(rows.clone().count() * depth);
        self.rows.clear();
        for (row, values) in rows.zip(self.values.chunks_exact_mut(depth)) {
            self.rows.push(kernel.convert(row, values));
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
        self.values.at_least(converted.rows.len() * depth);
        self.rows.clear();
        let converted = converted.values.chunks_exact(depth).zip(&converted.rows);
        for ((row, (values, of)), out) in
            rows.zip(converted).zip(self.values.chunks_exact_mut(depth))
        {
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
