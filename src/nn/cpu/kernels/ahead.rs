//! Weights that are fetched before they are multiplied.
#![allow(unsafe_code, reason = "an instruction that says what will be read")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

/// Fetches the panel after the one that is multiplied into the second cache, a line at a step at most.
///
/// A model's weights are in the last cache or in memory each time that they are read, and what a processor
/// fetches ahead by itself ends with a page, which is less than a panel.
pub(super) struct Ahead {
    place: *const u8,
    stride: usize,
}

impl Ahead {
    /// For a tile from `row` on, one of those of up to `tallest` of `rows` rows. It takes `steps` steps through
    /// `panel`, and fetches as much of the next as it has of the rows.
    #[inline(always)]
    pub(super) fn new<T>(
        panel: &[T],
        row: usize,
        rows: usize,
        tallest: usize,
        steps: usize,
    ) -> Self {
        let bytes = size_of_val(panel);
        let first = bytes + bytes / rows.max(1) * row;
        let tiles = rows.div_ceil(tallest);
        Self {
            place: panel.as_ptr().cast::<u8>().wrapping_add(first),
            stride: bytes / (tiles * steps).max(1),
        }
    }

    /// To be called once a step.
    #[inline(always)]
    pub(super) fn step(&mut self) {
        // SAFETY: the instruction reads nothing that the program sees, and never faults: the last panel has none after it.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(self.place.cast());
        }
        self.place = self.place.wrapping_add(self.stride);
    }
}
