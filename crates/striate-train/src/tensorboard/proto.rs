//! Messages of protocol buffers, as far as event files need them.

/// A message that is being written, field by field, in the order of their numbers.
///
/// A field that is written is there even if its value is the default one.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

/// How a field's value is encoded.
#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

impl Message {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// An integer, an enumerator or a Boolean.
    pub(super) fn integer(self, field: u64, value: u64) -> Self {
        self.key(field, Wire::Varint).varint(value)
    }

    pub(super) fn double(self, field: u64, value: f64) -> Self {
        self.key(field, Wire::Fixed64).raw(&value.to_le_bytes())
    }

    pub(super) fn float(self, field: u64, value: f32) -> Self {
        self.key(field, Wire::Fixed32).raw(&value.to_le_bytes())
    }

    /// Bytes, or a text.
    pub(super) fn bytes(self, field: u64, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.key(field, Wire::Bytes).varint(value.len() as u64).raw(value)
    }

    pub(super) fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, value.0)
    }

    /// A packed list.
    pub(super) fn doubles(self, field: u64, values: &[f64]) -> Self {
        self.bytes(field, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn key(self, field: u64, wire: Wire) -> Self {
        self.varint(field << 3 | wire as u64)
    }

    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}
