//! How rows are divided into tiles.

/// Divides `rows` into as few tiles of at most `tallest` rows as it takes, and these as evenly
/// as can be: small tiles cannot keep the multipliers busy. Yields each one's first row and height.
pub(super) fn tiles(rows: usize, tallest: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(tallest);
    let (height, taller) = rows.checked_rem(count).map_or((0, 0), |rest| (rows / count, rest));
    (0..count)
        .map(move |tile| (tile * height + tile.min(taller), height + usize::from(tile < taller)))
}

/// Evaluates an expression in which the constant `$name` is a height of 1 to 3, to 6 or to 12,
/// that is known only at run time.
macro_rules! with_height {
    (3, $height:expr, $name:ident => $body:expr) => {
        with_height!(@ [1 2] 3, $height, $name => $body)
    };
    (6, $height:expr, $name:ident => $body:expr) => {
        with_height!(@ [1 2 3 4 5] 6, $height, $name => $body)
    };
    (12, $height:expr, $name:ident => $body:expr) => {
        with_height!(@ [1 2 3 4 5 6 7 8 9 10 11] 12, $height, $name => $body)
    };
    (@ [$($lower:literal)*] $tallest:literal, $height:expr, $name:ident => $body:expr) => {
        match $height {
            $($lower => {
                const $name: usize = $lower;
                $body
            })*
            _ => {
                const $name: usize = $tallest;
                $body
            }
        }
    };
}
pub(super) use with_height;
