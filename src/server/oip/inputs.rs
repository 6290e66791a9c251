//! The input tensors of a request, to documents: `text`, and `title` if there is one, with an
//! element a document.

use super::proto::InferTensorContents;
use super::proto::model_infer_request::InferInputTensor;
use super::values::decode;
use super::{invalid, parameters};
use crate::pipeline::Document;
use crate::server::status::CallError;

/// The texts. Required.
pub(super) const TEXT: &str = "text";
/// The headlines, as many as there are texts.
pub(super) const TITLE: &str = "title";
/// The datatype of both.
pub(super) const DATATYPE: &str = "BYTES";

/// Dimensions of a shape that an error quotes.
const QUOTED_DIMENSIONS: usize = 4;

/// The documents in `inputs`, whose elements are in `raw` if that holds anything. At most `limit`.
///
/// # Errors
/// Names the first field that is not as it must be.
pub(super) fn documents(
    inputs: Vec<InferInputTensor>,
    raw: &[Vec<u8>],
    limit: usize,
) -> Result<Vec<Document>, CallError> {
    if !raw.is_empty() && raw.len() != inputs.len() {
        let expected = format!("{}, one an input", entries(inputs.len()));
        return Err(invalid("raw_input_contents", entries(raw.len()), expected));
    }
    let (mut texts, mut titles) = (None, None);
    for (index, input) in inputs.into_iter().enumerate() {
        let column = match input.name.as_str() {
            TEXT => &mut texts,
            TITLE => &mut titles,
            name => {
                let expected = format!("{TEXT:?} or {TITLE:?}");
                return Err(invalid(
                    format!("inputs[{index}].name"),
                    format!("{name:?}"),
                    expected,
                ));
            }
        };
        if column.is_some() {
            let value = format!("{:?} a second time", input.name);
            return Err(invalid(format!("inputs[{index}].name"), value, "that of no other input"));
        }
        *column = Some(Column { index, elements: elements(index, input, raw, limit)? });
    }
    let Some(texts) = texts else {
        return Err(invalid("inputs", format!("without {TEXT:?}"), format!("with {TEXT:?}")));
    };
    together(texts, titles)
}

/// A tensor that was read.
struct Column {
    /// Its place among the inputs.
    index: usize,
    elements: Vec<String>,
}

fn together(texts: Column, titles: Option<Column>) -> Result<Vec<Document>, CallError> {
    let Some(titles) = titles else {
        let document = |text| Document { text, ..Document::default() };
        return Ok(texts.elements.into_iter().map(document).collect());
    };
    if titles.elements.len() != texts.elements.len() {
        return Err(invalid(
            format!("inputs[{}].shape", titles.index),
            format!("[{}]", titles.elements.len()),
            format!("[{}], as that of {TEXT:?}", texts.elements.len()),
        ));
    }
    let both = titles.elements.into_iter().zip(texts.elements);
    Ok(both.map(|(title, text)| Document { id: String::new(), title, text }).collect())
}

/// The elements of the input at `index`.
fn elements(
    index: usize,
    input: InferInputTensor,
    raw: &[Vec<u8>],
    limit: usize,
) -> Result<Vec<String>, CallError> {
    let at = |part: &str| format!("inputs[{index}].{part}");
    if input.datatype != DATATYPE {
        let value = format!("{:?}", input.datatype);
        return Err(invalid(at("datatype"), value, format!("{DATATYPE:?}")));
    }
    parameters::refuse_shared_memory(&input.parameters, &format!("inputs[{index}]"))?;
    let Some(count) = rows(&input.shape).filter(|count| (1..=limit).contains(count)) else {
        let expected = format!("[n] or [n, 1], where n is from 1 to {limit}");
        return Err(invalid(at("shape"), quoted(&input.shape), expected));
    };
    let contents = input.contents.map(|contents| *contents).unwrap_or_default();
    let bytes = match raw.get(index) {
        Some(raw) if contents == InferTensorContents::default() => from_raw(index, raw, count)?,
        Some(_) => {
            let expected = "absent where raw_input_contents is used";
            return Err(invalid(at("contents"), "set", expected));
        }
        None => from_contents(index, contents, count)?,
    };
    bytes.into_iter().enumerate().map(|(element, bytes)| text(index, element, bytes)).collect()
}

fn from_raw(index: usize, raw: &[u8], count: usize) -> Result<Vec<Vec<u8>>, CallError> {
    let elements = decode(raw, count).map_err(|error| {
        let expected = format!("{count} elements, each its length in 4 bytes and its bytes");
        invalid(format!("raw_input_contents[{index}]"), error.to_string(), expected)
    })?;
    Ok(elements.into_iter().map(<[u8]>::to_vec).collect())
}

fn from_contents(
    index: usize,
    mut contents: InferTensorContents,
    count: usize,
) -> Result<Vec<Vec<u8>>, CallError> {
    let field = format!("inputs[{index}].contents");
    let bytes = std::mem::take(&mut contents.bytes_contents);
    if contents != InferTensorContents::default() {
        return Err(invalid(field, "not all bytes", "all in bytes_contents"));
    }
    if bytes.len() != count {
        let expected = format!("{}, as the shape says", entries(count));
        return Err(invalid(format!("{field}.bytes_contents"), entries(bytes.len()), expected));
    }
    Ok(bytes)
}

/// The `n` of a shape `[n]` or `[n, 1]`.
fn rows(shape: &[i64]) -> Option<usize> {
    match shape {
        [rows] | [rows, 1] => usize::try_from(*rows).ok(),
        _ => None,
    }
}

fn text(index: usize, element: usize, bytes: Vec<u8>) -> Result<String, CallError> {
    String::from_utf8(bytes).map_err(|error| {
        let value = format!("not UTF-8 from byte {} on", error.utf8_error().valid_up_to());
        invalid(format!("element {element} of inputs[{index}]"), value, "UTF-8")
    })
}

fn quoted(shape: &[i64]) -> String {
    match shape.get(..QUOTED_DIMENSIONS) {
        Some(start) if shape.len() > QUOTED_DIMENSIONS => {
            format!("{start:?} and {} dimensions more", shape.len() - QUOTED_DIMENSIONS)
        }
        _ => format!("{shape:?}"),
    }
}

fn entries(count: usize) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Tensors that are more often good than chance would have it.
    fn tensors() -> impl Strategy<Value = InferInputTensor> {
        let name = prop_oneof![Just("text"), Just("title"), Just("")];
        let datatype = prop_oneof![9 => Just("BYTES"), 1 => Just("FP32")];
        let shape = prop_oneof![(0_i64..4).prop_map(|n| vec![n]), vec(-2_i64..4, 0..4)];
        let contents = proptest::option::of(vec(vec(any::<u8>(), 0..3), 0..4));
        (name, datatype, shape, contents).prop_map(|(name, datatype, shape, contents)| {
            let contents = contents.map(|bytes_contents| {
                Box::new(InferTensorContents { bytes_contents, ..Default::default() })
            });
            let (name, datatype) = (name.to_owned(), datatype.to_owned());
            InferInputTensor { name, datatype, shape, contents, ..Default::default() }
        })
    }

    proptest! {
        #[test]
        fn tensors_are_read_as_their_shape_says_or_refused(
            inputs in vec(tensors(), 0..4),
            raw in vec(vec(0_u8..6, 0..12), 0..4),
        ) {
            let text = inputs.iter().find(|input| input.name == TEXT).cloned();
            if let Ok(documents) = documents(inputs, &raw, 3) {
                let rows = rows(&text.unwrap().shape).unwrap();
                prop_assert!((1..=3).contains(&rows));
                prop_assert_eq!(documents.len(), rows);
            }
        }
    }
}
