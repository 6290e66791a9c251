//! Messages of few fields: what a message may take in memory before anybody has looked at it; and
//! what an answer takes until it is sent: no more than its bytes.
//!
//! An empty document, tensor or name has two bytes on the wire and up to a hundred in memory, and a
//! small number one and eight, so a message within the limit on bytes could take fifty times as
//! many. No request needs that many.

use std::any::TypeId;
use std::collections::BTreeMap;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic_prost::ProstCodec;

use super::config::MAX_BATCH_DOCUMENTS;
use super::oip::proto::ModelInferRequest;
use super::proto::{ClassifyBatchRequest, ClassifyRequest, ClassifyStreamRequest};
use super::status::CallError;

/// Entries of a repeated field that holds no documents.
const MAX_ENTRIES: usize = 1_024;

/// The usual codec, which decodes no request of more fields than it can need.
pub(crate) struct FewFields<T, U>(ProstCodec<T, U>);

/// Its encoder, which leaves no spare room behind a message.
pub(crate) struct ExactEncoder<E>(E);

/// Its decoder.
pub(crate) struct FewFieldsDecoder<D>(D);

/// A field of a request that has a limit, or parts that have one.
struct Field {
    /// As an error calls it.
    name: &'static str,
    tag: u32,
    /// Entries in a whole request, at most.
    limit: usize,
    entries: Entries,
}

/// What the entries of a field are.
enum Entries {
    /// Messages, of which these fields matter; or strings, bytes or pairs.
    Parts(&'static [Field]),
    /// Numbers, which may lie together in one part.
    Numbers,
}

const fn parts(tag: u32, name: &'static str, limit: usize, fields: &'static [Field]) -> Field {
    Field { name, tag, limit, entries: Entries::Parts(fields) }
}

const fn numbers(tag: u32, name: &'static str, limit: usize) -> Field {
    Field { name, tag, limit, entries: Entries::Numbers }
}

const OPTIONS: Field =
    parts(2, "options", usize::MAX, &[parts(2, "options.tasks", MAX_ENTRIES, &[])]);
/// Of `Classify`, and of each message of `ClassifyStream`.
const CLASSIFY: &[Field] = &[OPTIONS];
const BATCH: &[Field] = &[parts(1, "documents", MAX_BATCH_DOCUMENTS, &[]), OPTIONS];
const INFER: &[Field] = &[
    parts(4, "parameters", MAX_ENTRIES, &[]),
    parts(5, "inputs", MAX_ENTRIES, INPUT),
    parts(6, "outputs", MAX_ENTRIES, &[parts(2, "outputs.parameters", MAX_ENTRIES, &[])]),
    parts(7, "raw_input_contents", MAX_ENTRIES, &[]),
];
const INPUT: &[Field] = &[
    numbers(3, "inputs.shape", MAX_ENTRIES),
    parts(4, "inputs.parameters", MAX_ENTRIES, &[]),
    parts(5, "inputs.contents", usize::MAX, CONTENTS),
];
/// Texts and titles; numbers are refused, but not by their number. Those of a fixed size, and
/// `bool`s, take no more memory than they do on the wire.
const CONTENTS: &[Field] = &[
    numbers(2, "inputs.contents.int_contents", MAX_BATCH_DOCUMENTS),
    numbers(3, "inputs.contents.int64_contents", MAX_BATCH_DOCUMENTS),
    numbers(4, "inputs.contents.uint_contents", MAX_BATCH_DOCUMENTS),
    numbers(5, "inputs.contents.uint64_contents", MAX_BATCH_DOCUMENTS),
    parts(8, "inputs.contents.bytes_contents", 2 * MAX_BATCH_DOCUMENTS, &[]),
];

/// The fields of a `T` that matter.
fn fields<T: 'static>() -> &'static [Field] {
    let of = TypeId::of::<T>();
    if of == TypeId::of::<ClassifyRequest>() || of == TypeId::of::<ClassifyStreamRequest>() {
        CLASSIFY
    } else if of == TypeId::of::<ClassifyBatchRequest>() {
        BATCH
    } else if of == TypeId::of::<ModelInferRequest>() {
        INFER
    } else {
        // No other request has repeated fields; a reply may, and is the server's own.
        &[]
    }
}

impl<T, U> Default for FewFields<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T, U> Codec for FewFields<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ExactEncoder<<ProstCodec<T, U> as Codec>::Encoder>;
    type Decoder = FewFieldsDecoder<<ProstCodec<T, U> as Codec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        ExactEncoder(self.0.encoder())
    }

    fn decoder(&mut self) -> Self::Decoder {
        FewFieldsDecoder(self.0.decoder())
    }
}

impl<E> Encoder for ExactEncoder<E>
where
    E: Encoder<Item: Message, Error = Status>,
{
    type Item = E::Item;
    type Error = Status;

    fn encode(&mut self, message: E::Item, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // As it grows by itself, it doubles.
        buffer.reserve(message.encoded_len());
        self.0.encode(message, buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

impl<D> Decoder for FewFieldsDecoder<D>
where
    D: Decoder<Error = Status>,
    D::Item: 'static,
{
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<D::Item>, Status> {
        // A message lies in one piece, which is counted without being consumed.
        check(buffer.chunk(), fields::<D::Item>())?;
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Checks how many entries the `fields` of `message` have, as far as it can be read; what cannot
/// be is for the decoder to say.
fn check(message: &[u8], fields: &'static [Field]) -> Result<(), CallError> {
    if fields.is_empty() {
        return Ok(());
    }
    let mut counts = BTreeMap::new();
    // An error ends the count, not the message.
    let _ = count(message, fields, &mut counts);
    let over = counts.into_iter().find(|(_, (actual, limit))| actual > limit);
    over.map_or(Ok(()), |(field, (actual, limit))| {
        Err(CallError::TooManyFields { field, limit, actual })
    })
}

/// Adds the entries that `fields` of `message` have to `counts`, where each is with its limit.
fn count(
    mut message: &[u8],
    fields: &'static [Field],
    counts: &mut BTreeMap<&'static str, (usize, usize)>,
) -> Result<(), prost::DecodeError> {
    while message.has_remaining() {
        let (tag, wire_type) = decode_key(&mut message)?;
        let Some(field) = fields.iter().find(|field| field.tag == tag) else {
            skip_field(wire_type, tag, &mut message, DecodeContext::default())?;
            continue;
        };
        let whole = message;
        skip_field(wire_type, tag, &mut message, DecodeContext::default())?;
        let part = whole.get(..whole.len() - message.len()).unwrap_or_default();
        let mut entries = 1;
        if wire_type == WireType::LengthDelimited {
            let mut part = part;
            decode_varint(&mut part)?;
            match field.entries {
                Entries::Parts([]) => {}
                Entries::Parts(fields) => count(part, fields, counts)?,
                // Each ends with the byte that has no flag for another.
                Entries::Numbers => entries = part.iter().filter(|byte| **byte < 0x80).count(),
            }
        }
        if field.limit < usize::MAX {
            counts.entry(field.name).or_insert((0, field.limit)).0 += entries;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::server::oip::proto::model_infer_request::InferInputTensor;

    fn encoded(inputs: usize) -> Vec<u8> {
        let inputs = vec![InferInputTensor::default(); inputs];
        ModelInferRequest { inputs, ..ModelInferRequest::default() }.encode_to_vec()
    }

    #[test]
    fn elements_are_no_fields_of_the_message() {
        let raw_input_contents = vec![vec![0; 1_000_000]];
        let request = ModelInferRequest { raw_input_contents, ..ModelInferRequest::default() };
        assert_eq!(check(&request.encode_to_vec(), INFER), Ok(()));
    }

    #[test]
    fn what_lies_in_parts_is_counted_over_all_of_them() {
        // Numbers apart (field 3, each with a tag of its own) and together, in two tensors.
        let apart = [0x18, 0x80, 1].repeat(600);
        let together = [&[0x1a, 0xf4, 3][..], &[7; 500]].concat();
        let input = |shape: &[u8]| {
            let mut input = vec![0x2a];
            prost::encoding::encode_varint(shape.len() as u64, &mut input);
            [&input, shape].concat()
        };
        let (apart, together) = (input(&apart), input(&together));
        assert_eq!(check(&apart, INFER), Ok(()));
        assert_eq!(check(&together, INFER), Ok(()));
        let refused = check(&[apart, together].concat(), INFER).unwrap_err();
        assert_eq!(
            refused,
            CallError::TooManyFields { field: "inputs.shape", limit: 1_024, actual: 1_100 }
        );
    }

    proptest! {
        /// Bytes that cannot be read to the end are left to the decoder, and no bytes panic.
        #[test]
        fn requests_with_more_fields_than_allowed_are_never_decoded(bytes: Vec<u8>, inputs in 0_usize..2_000) {
            let few = check(&[encoded(inputs), bytes.clone()].concat(), INFER).is_ok();
            prop_assert!(few || inputs + bytes.len() > MAX_ENTRIES);
            prop_assert!(!few || inputs <= MAX_ENTRIES);
        }
    }
}
