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
/// deliver meanwhile.
pub(super) struct Ahead {
    place: *const u8,
    /// Bytes a step.
    share: usize,
}

impl Ahead {
    /// Of `next`, the share of a tile of up to `height` rows, from `row` on, of the `rows` that a panel
    /// is multiplied with, in `steps` steps.
    #[inline(always)]
    pub(super) fn new<T>(next: &[T], row: usize, height: usize, rows: usize, steps: usize) -> Self {
        let of_row = size_of_val(next) / rows.max(1);
        Self {
            place: next.as_ptr().cast::<u8>().wrapping_add(of_row * row),
            share: (of_row * height.min(rows.saturating_sub(row))).div_ceil(steps.max(1)),
        }
    }

    /// To be called once a step. `lines` is the most that a share can be, so that there is no loop
    /// where that is little.
    #[inline(always)]
    pub(super) fn step(&mut self, lines: usize) {
        let mut place = 0;
        while place < self.share.min(lines.saturating_mul(LINE)) {
            fetch(self.place.wrapping_add(place));
            place += LINE;
        }
        self.place = self.place.wrapping_add(self.share);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_next_panel_is_fetched_and_hardly_more() {
        let panel = [0_u8; 3 * 1024];
        for (rows, steps) in (1..200).flat_map(|rows| [1, 6, 24].map(|steps| (rows, steps))) {
            let mut end = 0;
            for row in (0..rows).step_by(32) {
                let ahead = Ahead::new(&panel, row, 32, rows, steps);
                let start = ahead.place.addr() - panel.as_ptr().addr();
                assert!(start <= end, "{rows} rows: a gap before row {row}");
                end = start + ahead.share * steps;
            }
            let missing = panel.len().saturating_sub(end);
            assert!(missing < rows && end <= panel.len() + steps, "{rows} rows: to {end}");
        }
    }
}
