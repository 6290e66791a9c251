//! The elements of a tensor: typed, in a field of their own, or raw, as bytes.

use super::proto::InferTensorContents;

/// Bytes of the length that stands before each element of a raw BYTES tensor.
const LENGTH_BYTES: usize = size_of::<u32>();

/// The elements of a tensor that a model gives, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    /// BYTES.
    Bytes(Vec<Vec<u8>>),
    /// FP32.
    Fp32(Vec<f32>),
    /// BOOL.
    Bool(Vec<bool>),
}

/// Why raw bytes are not the elements of a tensor. Offsets count from the first byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RawError {
    /// The bytes end within an element, or before it.
    #[error(
        "cut off: element {element} needs {needed} bytes at offset {offset}, where {left} are left"
    )]
    Truncated { element: usize, offset: usize, needed: usize, left: usize },
    /// There are bytes after the last element.
    #[error("too long: {bytes} bytes follow the last of {elements} elements")]
    Trailing { elements: usize, bytes: usize },
}

impl Values {
    /// The name of the type.
    pub(super) fn datatype(&self) -> &'static str {
        match self {
            Self::Bytes(_) => "BYTES",
            Self::Fp32(_) => "FP32",
            Self::Bool(_) => "BOOL",
        }
    }

    /// The elements in the field of their type.
    pub(super) fn into_contents(self) -> InferTensorContents {
        let mut contents = InferTensorContents::default();
        match self {
            Self::Bytes(values) => contents.bytes_contents = values,
            Self::Fp32(values) => contents.fp32_contents = values,
            Self::Bool(values) => contents.bool_contents = values,
        }
        contents
    }

    /// The elements as bytes.
    pub(super) fn into_raw(self) -> Vec<u8> {
        match self {
            Self::Bytes(values) => encode(&values),
            Self::Fp32(values) => values.into_iter().flat_map(f32::to_le_bytes).collect(),
            Self::Bool(values) => values.into_iter().map(u8::from).collect(),
        }
    }
}

/// The raw form of BYTES elements: before each its length, little-endian.
fn encode(elements: &[Vec<u8>]) -> Vec<u8> {
    let bytes = elements.iter().map(|element| LENGTH_BYTES + element.len()).sum();
    let mut raw = Vec::with_capacity(bytes);
    for element in elements {
        // What is sent is labels and scores, never 4 GiB of either.
        let length = u32::try_from(element.len()).unwrap_or(u32::MAX);
        raw.extend_from_slice(&length.to_le_bytes());
        raw.extend_from_slice(element);
    }
    raw
}

/// The `count` elements of a raw BYTES tensor.
///
/// # Errors
/// There are fewer bytes, or more.
pub(super) fn decode(raw: &[u8], count: usize) -> Result<Vec<&[u8]>, RawError> {
    let mut rest = raw;
    let mut elements = Vec::with_capacity(count);
    for element in 0..count {
        let cut = |needed: usize, rest: &[u8]| RawError::Truncated {
            element,
            offset: raw.len() - rest.len(),
            needed,
            left: rest.len(),
        };
        let (length, after) =
            rest.split_first_chunk::<LENGTH_BYTES>().ok_or_else(|| cut(LENGTH_BYTES, rest))?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (bytes, after) = after.split_at_checked(length).ok_or_else(|| cut(length, after))?;
        elements.push(bytes);
        rest = after;
    }
    match rest.len() {
        0 => Ok(elements),
        bytes => Err(RawError::Trailing { elements: count, bytes }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_back(elements: Vec<Vec<u8>>) {
            let raw = encode(&elements);
            prop_assert_eq!(decode(&raw, elements.len()), Ok(elements.iter().map(Vec::as_slice).collect()));
        }

        /// What is decoded is all of the bytes, whatever they are; otherwise there is an error.
        #[test]
        fn any_bytes_are_decoded_whole_or_refused(raw: Vec<u8>, count in 0_usize..8) {
            if let Ok(elements) = decode(&raw, count) {
                let elements: Vec<Vec<u8>> = elements.into_iter().map(<[u8]>::to_vec).collect();
                prop_assert_eq!(elements.len(), count);
                prop_assert_eq!(encode(&elements), raw);
            }
        }

        #[test]
        fn no_cut_and_no_tail_is_taken(elements in proptest::collection::vec(any::<Vec<u8>>(), 1..5), tail in 1_usize..9) {
            let raw = encode(&elements);
            for end in 0..raw.len() {
                let cut = matches!(decode(&raw[..end], elements.len()), Err(RawError::Truncated { .. }));
                prop_assert!(cut, "{} of {} bytes", end, raw.len());
            }
            let longer = [raw, vec![0; tail]].concat();
            let trailing = RawError::Trailing { elements: elements.len(), bytes: tail };
            prop_assert_eq!(decode(&longer, elements.len()), Err(trailing));
        }
    }

    #[test]
    fn an_error_says_where_the_bytes_end() {
        let raw = [2, 0, 0, 0, b'a', b'b', 9, 0, 0, 0, b'c'];
        let cut = RawError::Truncated { element: 1, offset: 10, needed: 9, left: 1 };
        assert_eq!(decode(&raw, 2), Err(cut));
        let cut = RawError::Truncated { element: 1, offset: 6, needed: 4, left: 2 };
        assert_eq!(decode(&raw[..8], 2), Err(cut));
        assert_eq!(decode(&raw, 0), Err(RawError::Trailing { elements: 0, bytes: 11 }));
    }

    #[test]
    fn numbers_are_little_endian_and_flags_a_byte() {
        assert_eq!(Values::Fp32(vec![1.0, -2.5]).into_raw(), [0, 0, 128, 63, 0, 0, 32, 192]);
        assert_eq!(Values::Bool(vec![true, false]).into_raw(), [1, 0]);
    }
}
