//! Reads and writes protobuf fields one by one, without copying: enough to look into a model file without its weights.

/// The bytes are cut short, or are no protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    /// Its number in the message's definition.
    pub(crate) number: u64,
    /// The whole field as it stands in the message, so that it can be copied to another.
    pub(crate) raw: &'a [u8],
    value: Value<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Field<'a> {
    /// The bytes of a text, a message or a packed list.
    pub(crate) fn bytes(&self) -> Result<&'a [u8], Broken> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(Broken),
        }
    }

    /// A text.
    pub(crate) fn text(&self) -> Result<&'a str, Broken> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Broken)
    }

    /// A number, or an enumeration's.
    pub(crate) fn number_value(&self) -> Result<i64, Broken> {
        match self.value {
            Value::Varint(value) => Ok(value.cast_signed()),
            _ => Err(Broken),
        }
    }

    /// Adds the numbers of a repeated field, which may be packed, to `out`.
    pub(crate) fn numbers(&self, out: &mut Vec<i64>) -> Result<(), Broken> {
        match self.value {
            Value::Varint(value) => out.push(value.cast_signed()),
            Value::Bytes(mut packed) => {
                while !packed.is_empty() {
                    out.push(varint(&mut packed)?.cast_signed());
                }
            }
            Value::Fixed => return Err(Broken),
        }
        Ok(())
    }
}

/// The fields of a message, in its order. Ends after the first broken one.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>, Broken>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn next<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, Broken> {
    let start = *rest;
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => take(rest, 8).map(|_| Value::Fixed)?,
        2 => {
            let length = varint(rest)?;
            Value::Bytes(take(rest, usize::try_from(length).map_err(|_| Broken)?)?)
        }
        5 => take(rest, 4).map(|_| Value::Fixed)?,
        _ => return Err(Broken),
    };
    if tag >> 3 == 0 {
        return Err(Broken);
    }
    Ok(Field { number: tag >> 3, raw: &start[..start.len() - rest.len()], value })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Broken> {
    let (taken, left) = rest.split_at_checked(length).ok_or(Broken)?;
    *rest = left;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Broken> {
    let mut value = 0u64;
    for (place, &byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            *rest = &rest[place + 1..];
            return Ok(value);
        }
    }
    Err(Broken)
}

/// Appends a number.
pub(crate) fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3);
    put_varint(out, value);
}

/// Appends a text or a message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_whatever_is_cut_off_is_noticed() {
        let mut message = Vec::new();
        put_number(&mut message, 1, 300);
        put_bytes(&mut message, 2, b"name");
        let read: Vec<_> = fields(&message).collect::<Result<_, _>>().expect("whole");
        assert_eq!(read[0].number_value(), Ok(300));
        assert_eq!(read[1].text(), Ok("name"));
        assert_eq!(read[1].raw, &message[3..]);
        for length in [1, 2, 4, 5, message.len() - 1] {
            assert!(fields(&message[..length]).any(|field| field.is_err()), "cut to {length}");
        }
    }

    #[test]
    fn packed_numbers_are_the_numbers_one_by_one() {
        let mut numbers = Vec::new();
        let mut message = Vec::new();
        put_bytes(&mut message, 8, &[1, 0xac, 2]);
        put_number(&mut message, 8, u64::MAX);
        for field in fields(&message) {
            field.expect("whole").numbers(&mut numbers).expect("numbers");
        }
        assert_eq!(numbers, [1, 300, -1]);
    }

    #[test]
    fn no_bytes_make_it_panic_or_run_on() {
        for seed in 0..20_000u64 {
            let bytes = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
            assert!(fields(&bytes).count() <= 8);
        }
    }
}
