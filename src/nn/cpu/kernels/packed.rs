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
        let (activations, stride) = match K::as_activations(rows) {
            Some(activations) => {
                input.rows.clear();
                input.rows.resize(rows.len() / stride, Row::PLAIN);
                (activations, stride)
            }
            None => {
                input.convert(self.kernel, rows, stride, self.inputs, self.depth);
                (&*input.values, self.depth)
            }
        };
        let mut scope = self.kernel.scope();
        let width = self.kernel.panel_width();
        let weights = self.weights.chunks_exact(width * self.depth);
        let scales = self.scales.chunks_exact(width);
        let columns = scales.zip(self.bias.chunks_exact(width)).zip(self.sums.chunks_exact(width));
        let panels = weights.zip(columns).zip(&self.extras);
        for (panel, ((weights, ((scales, bias), sums)), extras)) in panels.enumerate() {
            let Some(out) = out.get_mut(panel * width..) else { return };
            self.kernel.multiply(
                &mut scope,
                Panel {
                    activations,
                    stride,
                    rows: &input.rows,
                    depth: self.depth,
                    weights,
                    scales,
                    bias,
                    sums,
                    extras,
                    out: &mut *out,
                    out_stride: self.width(),
                    expanded: &mut input.expanded,
                },
            );
            then(out, width);
        }
    }
}

/// Memory for rows that are converted for a kernel, and for the kernel itself.
pub(in super::super) struct Input<K: Kernel> {
    /// `[rows, depth]`.
    values: Aligned<K::Activation>,
    /// `[rows]`.
    rows: Vec<Row>,
    expanded: Vec<f32>,
}

impl<K: Kernel> Input<K> {
    /// Converts the first `inputs` of each `stride` values, to rows of `depth`.
    fn convert(&mut self, kernel: K, rows: &[f32], stride: usize, inputs: usize, depth: usize) {
        self.values.at_least(rows.len() / stride * depth);
        self.rows.clear();
        let rows = rows.chunks_exact(stride).filter_map(|row| row.get(..inputs));
        for (row, values) in rows.zip(self.values.chunks_exact_mut(depth)) {
            self.rows.push(kernel.convert(row, values));
        }
    }
}

impl<K: Kernel> Default for Input<K> {
    fn default() -> Self {
        Self { values: Aligned::new(0), rows: Vec::new(), expanded: Vec::new() }
    }
}
