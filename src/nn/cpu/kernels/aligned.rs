//! Buffers that begin at a cache line.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest vector.
const ALIGNMENT: usize = 64;

/// Values from one row of `len` to the next, so that rows begin at a cache line and do not meet in
/// few sets of a cache: an odd number of lines.
pub(in super::super) fn row_stride<T>(len: usize) -> usize {
    let line = ALIGNMENT / size_of::<T>().max(1);
    (len.div_ceil(line) | 1) * line
}

/// Values that begin at a cache line, so that no vector of them crosses one needlessly.
pub(in super::super) struct Aligned<T> {
    values: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// `len` values, all default.
    pub(in super::super) fn new(len: usize) -> Self {
        let values = vec![T::default(); len + ALIGNMENT / size_of::<T>().max(1)];
        let start = values.as_ptr().align_offset(ALIGNMENT).min(values.len() - len);
        Self { values, start, len }
    }

    /// Makes room for `len` values; what they are is not said.
    pub(in super::super) fn at_least(&mut self, len: usize) {
        if self.len < len {
            *self = Self::new(len);
        }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.values.get(self.start..self.start + self.len).unwrap_or_default()
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.values.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}
