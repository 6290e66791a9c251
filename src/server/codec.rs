//! Messages of few fields: what a message may take in memory before anybody has looked at it.
//!
//! An empty document or tensor has two bytes on the wire and about a hundred in memory, so a message
//! within the limit on bytes could take fifty times as many. No request needs that many.

use std::any::TypeId;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

use super::config::MAX_BATCH_DOCUMENTS;
use super::oip::proto::ModelInferRequest;
use super::proto::ClassifyBatchRequest;
use super::status::CallError;

/// Tensors, parameters and other fields of a request to infer.
const MAX_INFER_FIELDS: usize = 1_024;

/// The usual codec, which decodes no request of more fields than it can need.
pub(crate) struct FewFields<T, U>(ProstCodec<T, U>);

/// Fields of a `T`, at most: each entry of a repeated one counted, and those of its fields not.
fn max_fields<T: 'static>() -> usize {
    let of = TypeId::of::<T>();
    if of == TypeId::of::<ClassifyBatchRequest>() {
        MAX_BATCH_DOCUMENTS + 1
    } else if of == TypeId::of::<ModelInferRequest>() {
        MAX_INFER_FIELDS
    } else {
        // No other request has many small parts; a reply may, and is the server's own.
        usize::MAX
    }
}

/// Its decoder.
pub(crate) struct FewFieldsDecoder<D>(D);

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
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = FewFieldsDecoder<<ProstCodec<T, U> as Codec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        FewFieldsDecoder(self.0.decoder())
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
        let limit = max_fields::<D::Item>();
        if limit < usize::MAX && !has_few_fields(buffer.chunk(), limit) {
            return Err(CallError::TooManyFields { limit }.into());
        }
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Whether `message` has at most `limit` fields as far as it can be read; what cannot be is for the
/// decoder to say.
fn has_few_fields(mut message: &[u8], limit: usize) -> bool {
    for _ in 0..limit {
        if !message.has_remaining() {
            return true;
        }
        let skipped = decode_key(&mut message).and_then(|(tag, wire_type)| {
            skip_field(wire_type, tag, &mut message, DecodeContext::default())
        });
        if skipped.is_err() {
            return true;
        }
    }
    !message.has_remaining()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::server::oip::proto::model_infer_request::InferInputTensor;

    const MAX: usize = MAX_INFER_FIELDS;

    fn encoded(inputs: usize) -> Vec<u8> {
        let inputs = vec![InferInputTensor::default(); inputs];
        ModelInferRequest { inputs, ..ModelInferRequest::default() }.encode_to_vec()
    }

    #[test]
    fn the_fields_of_a_message_are_counted() {
        assert!(has_few_fields(&encoded(0), MAX) && has_few_fields(&encoded(MAX), MAX));
        assert!(!has_few_fields(&encoded(MAX + 1), MAX));
    }

    #[test]
    fn elements_are_no_fields_of_the_message() {
        let raw_input_contents = vec![vec![0; 1_000_000]];
        let request = ModelInferRequest { raw_input_contents, ..ModelInferRequest::default() };
        assert!(has_few_fields(&request.encode_to_vec(), MAX));
    }

    proptest! {
        /// Bytes that cannot be read to the end are left to the decoder, and no bytes panic.
        #[test]
        fn bytes_with_more_fields_than_allowed_are_never_decoded(bytes: Vec<u8>, inputs in 0_usize..2_000) {
            let few = has_few_fields(&[encoded(inputs), bytes.clone()].concat(), MAX);
            prop_assert!(few || inputs + bytes.len() > MAX);
            prop_assert!(!few || inputs <= MAX);
        }
    }
}
