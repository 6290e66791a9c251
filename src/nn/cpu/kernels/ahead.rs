//! Weights that are fetched before they are multiplied.
#![allow(unsafe_code, reason = "an instruction that says what will be read")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Fetches the panel after the one that is multiplied into the second cache, on x86-64.
///
/// A model's weights come from the last cache or from memory each time that they are read, and what
/// a processor fetches ahead by itself ends with a page, which is less than a panel. Each tile
/// fetches its share, a little at every step: all at once would be more than the caches
/// deliver meanwhile. After the last panel, and for attention, it is of other memory, in vain.
pub(super) struct Ahead {
    place: *const u8,
    stride: usize,
}

impl Ahead {
    /// For a tile of `height` rows, from `row` on, of the `rows` that `panel` is multiplied with, in `steps` steps.
    #[inline(always)]
    pub(super) fn new<T>(
        panel: &[T],
        row: usize,
        height: usize,
        rows: usize,
        steps: usize,
    ) -> Self {
        let bytes = size_of_val(panel);
        let of_row = bytes / rows.max(1);
        Self {
            place: panel.as_ptr().cast::<u8>().wrapping_add(bytes + of_row * row),
            stride: (of_row * height).div_ceil(steps.max(1)),
        }
    }

    /// To be called once a step.
    #[inline(always)]
    pub(super) fn step(&mut self) {
        fetch(self.place);
        if self.stride > LINE {
            fetch(self.place.wrapping_add(LINE));
        }
        self.place = self.place.wrapping_add(self.stride);
    }
}

/// Fetches the line of `place`.
#[inline(always)]
fn fetch(place: *const u8) {
    // SAFETY: it changes nothing that the program sees, and never faults, whatever the address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        _mm_prefetch::<_MM_HINT_T1>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
