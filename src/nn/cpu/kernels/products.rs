//! Products of activations with each other, as attention has them.

use super::{Aligned, Extras, Panel, Row, Unscaled};

/// The kernel `A`, and what a [`Panel`] asks for beside values.
pub(in super::super) struct Products<A: Unscaled> {
    kernel: A,
    rows: Vec<Row>,
    /// `[panel width]`, as are the next three.
    zeros: Vec<f32>,
    ones: Vec<f32>,
    sums: Vec<i32>,
    padding: Vec<A::Activation>,
    extras: Extras<A::Weight>,
    expanded: Vec<f32>,
}

/// The rows that are multiplied: `count`, one every `stride` values.
pub(in super::super) struct Rows<'a, T> {
    pub(in super::super) values: &'a [T],
    pub(in super::super) stride: usize,
    pub(in super::super) count: usize,
}

impl<A: Unscaled> Products<A> {
    pub(in super::super) fn new(kernel: A) -> Self {
        let width = kernel.panel_width();
        Self {
            kernel,
            rows: Vec::new(),
            zeros: vec![0.0; width],
            ones: vec![1.0; width],
            sums: vec![0; width],
            padding: vec![A::Activation::default(); width],
            extras: Extras::default(),
            expanded: Vec::new(),
        }
    }

    /// Begins a few products.
    pub(in super::super) fn scope(&self) -> A::Scope {
        self.kernel.scope()
    }

    /// Converts activations for the kernel, of any number of rows, since none has a scale. `out`
    /// may be longer.
    pub(in super::super) fn convert(&self, values: &[f32], out: &mut [A::Activation]) {
        if let Some(out) = out.get_mut(..values.len()) {
            self.kernel.convert(values, out);
        }
    }

    /// See [`Kernel::convert_part`](super::Kernel::convert_part).
    pub(in super::super) fn convert_part(
        &self,
        values: &[f32],
        width: usize,
        out: &mut [A::Activation],
        stride: usize,
    ) {
        self.kernel.convert_part(values, width, out, stride);
    }

    /// Values that a row of results has for `outputs`: these, padded to whole panels.
    pub(in super::super) fn width(&self, outputs: usize) -> usize {
        outputs.next_multiple_of(self.kernel.panel_width())
    }

    /// Steps of the depth that [`pack_rows`](Self::pack_rows) makes of `inputs`, of which the last
    /// may meet a zero.
    pub(in super::super) fn depth_of_rows(inputs: usize) -> usize {
        inputs.next_multiple_of(A::GROUP)
    }

    /// Those that [`pack_columns`](Self::pack_columns) makes of `rows`, of which the last meet zeros.
    pub(in super::super) fn depth_of_columns(rows: usize) -> usize {
        rows.next_multiple_of(A::DEPTH)
    }

    /// Packs rows, each of which has the first `inputs` of its values for one output.
    pub(in super::super) fn pack_rows(
        &self,
        rows: &Rows<'_, A::Activation>,
        inputs: usize,
        panels: &mut Aligned<A::Weight>,
    ) {
        let (width, depth) = (self.kernel.panel_width(), Self::depth_of_rows(inputs));
        panels.at_least(self.width(rows.count) * depth);
        let panels = panels.chunks_exact_mut(width * depth);
        for (panel, first) in panels.zip((0..rows.count).step_by(width)) {
            let values = rows.values.get(first * rows.stride..).unwrap_or_default();
            let outputs = Rows { values, count: width.min(rows.count - first), ..*rows };
            let packed = self.kernel.pack(&outputs, inputs, panel);
            let others = values.chunks(rows.stride).take(outputs.count).enumerate().skip(packed);
            for (lane, row) in others {
                let mut places = panel.chunks_exact_mut(A::GROUP).skip(lane).step_by(width);
                let groups = row.get(..inputs).unwrap_or_default().chunks_exact(A::GROUP);
                let rest = groups.remainder();
                for (group, place) in groups.zip(places.by_ref()) {
                    place.copy_from_slice(group);
                }
                if let (false, Some(place)) = (rest.is_empty(), places.next()) {
                    let (place, padding) = place.split_at_mut(rest.len());
                    place.copy_from_slice(rest);
                    padding.fill(A::Weight::default());
                }
            }
        }
    }

    /// Packs rows, each of which has one value for each of `outputs`.
    pub(in super::super) fn pack_columns(
        &self,
        rows: &Rows<'_, A::Activation>,
        outputs: usize,
        panels: &mut Aligned<A::Weight>,
    ) {
        let (width, depth) = (self.kernel.panel_width(), Self::depth_of_columns(rows.count));
        panels.at_least(self.width(outputs) * depth);
        let panels = panels.chunks_exact_mut(width * depth);
        for (panel, first) in panels.zip((0..outputs).step_by(width)) {
            let lanes = width.min(outputs - first);
            let groups = rows.values.chunks(A::GROUP * rows.stride);
            let mut places = panel.chunks_exact_mut(width * A::GROUP);
            for (group, places) in groups.zip(places.by_ref()) {
                let row = |step: usize| {
                    let row = group.get(step * rows.stride + first..);
                    row.and_then(|row| row.get(..lanes)).unwrap_or(&self.padding)
                };
                if A::GROUP == 1 {
                    places.iter_mut().zip(row(0)).for_each(|(place, value)| *place = *value);
                    continue;
                }
                for (place, pair) in places.chunks_exact_mut(2).zip(row(0).iter().zip(row(1))) {
                    place.copy_from_slice(&[*pair.0, *pair.1]);
                }
            }
            places.for_each(|places| places.fill(A::Weight::default()));
        }
    }

    /// Multiplies rows with panels of `depth` steps, to `out`, `[rows, width]`.
    pub(in super::super) fn multiply(
        &mut self,
        scope: &mut A::Scope,
        rows: &Rows<'_, A::Activation>,
        depth: usize,
        panels: &[A::Weight],
        out: &mut [f32],
        width: usize,
    ) {
        self.rows.resize(rows.count, Row::PLAIN);
        let lanes = self.kernel.panel_width();
        for (weights, first) in panels.chunks_exact(lanes * depth).zip((0..width).step_by(lanes)) {
            self.kernel.multiply(
                scope,
                Panel {
                    activations: rows.values,
                    stride: rows.stride,
                    rows: &self.rows,
                    depth,
                    weights,
                    next: &[],
                    scales: &self.ones,
                    bias: &self.zeros,
                    sums: &self.sums,
                    extras: &self.extras,
                    out: out.get_mut(first..).unwrap_or_default(),
                    out_stride: width,
                    expanded: &mut self.expanded,
                },
            );
        }
    }
}
