//! The windows in which a model reads a text that is longer than it can take.

use std::ops::Range;

/// Ranges of at most `capacity` tokens that cover `tokens` tokens, each starting
/// `stride` tokens after the one before. A text of no tokens has one empty window.
///
/// A stride of zero, or one past `capacity`, would never end or leave a gap; it is
/// brought into `1..=capacity`.
pub fn windows(
    tokens: usize,
    capacity: usize,
    stride: usize,
) -> impl ExactSizeIterator<Item = Range<usize>> {
    let capacity = capacity.max(1);
    let stride = stride.clamp(1, capacity);
    let count = 1 + tokens.saturating_sub(capacity).div_ceil(stride);
    (0..count).map(move |index| {
        let start = index * stride;
        start..tokens.min(start + capacity)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_text_is_one_window() {
        for tokens in [0, 10] {
            let mut found = windows(tokens, 10, 5);
            assert_eq!((found.next(), found.next()), (Some(0..tokens), None));
        }
    }

    #[test]
    fn a_long_text_is_read_with_overlap() {
        assert!(windows(21, 10, 5).eq([0..10, 5..15, 10..20, 15..21]));
    }

    proptest! {
        #[test]
        fn windows_cover_every_token(
            tokens in 0usize..3_000,
            capacity in 0usize..600,
            stride in 0usize..700,
        ) {
            let mut covered = 0;
            for window in windows(tokens, capacity, stride) {
                prop_assert!(window.start <= covered, "no gap");
                prop_assert!(window.end >= covered, "each goes further");
                prop_assert!(window.len() <= capacity.max(1));
                covered = window.end;
            }
            prop_assert_eq!(covered, tokens);
        }
    }
}
