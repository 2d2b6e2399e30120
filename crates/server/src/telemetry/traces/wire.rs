//! Messages of protobuf, written as they are told: what is sent often is put into no structs before.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// The fields of a message.
#[derive(Default)]
pub(super) struct Message(pub(super) Vec<u8>);

impl Message {
    /// A number, or one of an enumeration.
    pub(super) fn number(&mut self, field: u32, number: u64) {
        encode_key(field, WireType::Varint, &mut self.0);
        encode_varint(number, &mut self.0);
    }

    /// `fixed32`.
    pub(super) fn fixed32(&mut self, field: u32, number: u32) {
        encode_key(field, WireType::ThirtyTwoBit, &mut self.0);
        self.0.extend(number.to_le_bytes());
    }

    /// `fixed64`.
    pub(super) fn fixed64(&mut self, field: u32, number: u64) {
        encode_key(field, WireType::SixtyFourBit, &mut self.0);
        self.0.extend(number.to_le_bytes());
    }

    /// Bytes, or text, or a message that is written already.
    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        encode_key(field, WireType::LengthDelimited, &mut self.0);
        encode_varint(bytes.len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes);
    }

    /// A message within it.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        encode_key(field, WireType::LengthDelimited, &mut self.0);
        let at = self.0.len();
        write(self);
        // The length stands before what it is the length of.
        let end = self.0.len();
        let length = (end - at) as u64;
        let room = encoded_len_varint(length);
        self.0.resize(end + room, 0);
        self.0.copy_within(at..end, at + room);
        encode_varint(length, &mut &mut self.0[at..at + room]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_within_another_has_its_length_before_it_however_long_that_is() {
        for size in [0, 1, 127, 128, 20_000] {
            let mut message = Message::default();
            message.message(1, |within| within.0.resize(within.0.len() + size, 7));
            let mut expected = Message::default();
            expected.bytes(1, &vec![7; size]);
            assert_eq!(message.0, expected.0, "{size}");
        }
    }
}
