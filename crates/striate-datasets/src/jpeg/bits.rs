//! The bits of a JPEG's data, and what they are codes of.

use super::header::ZIGZAG;
use striate_torch::jpeg::BLOCK;

/// Codes of so many bits are looked up at once.
const LOOKED_UP: u32 = 10;
/// The longest code.
const LONGEST: usize = 16;
/// Bits of an entry of a [`Table`]: those of a code, or of a code and its value.
const LENGTH: u32 = 0x1f;
/// The value is part of the entry, in its upper half.
const WITH_VALUE: u32 = 0x20;

/// Huffman's codes.
#[derive(Clone)]
pub(super) struct Table {
    /// By the next bits: the length, a flag, the code's symbol in bits 8 to 15, and a value; 0 if the code is longer.
    entries: Box<[u32; 1 << LOOKED_UP]>,
    /// Of each length, the first code that is too large, with all bits of the longest.
    ends: [u32; LONGEST + 1],
    /// Of each length, what a code is short of its symbol's place.
    offsets: [i32; LONGEST + 1],
    symbols: [u8; 256],
}

impl Table {
    /// Of the number of codes of each length and their symbols; `runs` says that these are zeros and a size, and not a size alone.
    /// `None` if there are no such codes.
    pub(super) fn new(counts: &[u8; LONGEST], symbols: &[u8], runs: bool) -> Option<Self> {
        let mut table =
            Self { entries: Box::new([0; 1 << LOOKED_UP]), ends: [0; LONGEST + 1], offsets: [0; LONGEST + 1], symbols: [0; 256] };
        table.symbols.get_mut(..symbols.len())?.copy_from_slice(symbols);
        if !runs && symbols.iter().any(|size| *size > 15) {
            return None;
        }
        let (mut code, mut place) = (0_u32, 0);
        for (length, count) in (1_u32..).zip(counts) {
            table.offsets[length as usize] = place as i32 - code as i32;
            for _ in 0..*count {
                if length <= LOOKED_UP {
                    let free = LOOKED_UP - length;
                    let first = (code << free) as usize;
                    for (bits, entry) in table.entries.get_mut(first..first + (1 << free))?.iter_mut().enumerate() {
                        *entry = entry_of(length, table.symbols[place], bits as u32, free, runs);
                    }
                }
                (code, place) = (code + 1, place + 1);
            }
            if code > 1 << length {
                return None;
            }
            table.ends[length as usize] = code << (LONGEST as u32 - length);
            code <<= 1;
        }
        Some(table)
    }
}

/// The entry of a code that `free` more bits follow.
fn entry_of(length: u32, symbol: u8, bits: u32, free: u32, runs: bool) -> u32 {
    let (size, code) = (u32::from(symbol & 15), u32::from(symbol) << 8 | length);
    match size {
        0 if runs => code,
        size if size <= free => {
            let value = extended(bits >> (free - size), size);
            u32::from(value as i16 as u16) << 16 | u32::from(symbol) << 8 | WITH_VALUE | (length + size)
        }
        _ => code,
    }
}

/// The number that `size` bits stand for: those that begin with 0 are negative.
fn extended(bits: u32, size: u32) -> i32 {
    if size > 0 && bits >> (size - 1) == 0 { bits as i32 - (1 << size) + 1 } else { bits as i32 }
}

/// Reads bits up to the next marker.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, from the highest on.
    buffer: u64,
    count: u32,
    /// So many of them are zeros that nothing stands for.
    made_up: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, buffer: 0, count: 0, made_up: 0 }
    }

    /// Whether more bits were read than there are.
    pub(super) fn is_overrun(&self) -> bool {
        self.count < self.made_up
    }

    /// Whether the data end here, with the marker `code`. Goes behind it.
    pub(super) fn end_with(&mut self, code: u8) -> bool {
        let left = self.count.saturating_sub(self.made_up);
        let ends = !self.is_overrun() && left < 8 && self.bytes.get(self.at..self.at + 2) == Some(&[0xff, code]);
        (self.at, self.buffer, self.count, self.made_up) = (self.at + 2, 0, 0, 0);
        ends
    }

    /// Makes sure of 32 bits, by zeros behind the end: as many as a code and its value have.
    #[inline(always)]
    fn fill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(Ok(next)) = self.bytes.get(self.at..self.at + 8).map(<[u8; 8]>::try_from) {
            let next = u64::from_be_bytes(next);
            // Whether a byte is 0xff.
            if (!next).wrapping_sub(0x0101_0101_0101_0101) & next & 0x8080_8080_8080_8080 == 0 {
                self.buffer |= next >> self.count;
                // A byte of which only some bits fit is read again.
                let bytes = (63 - self.count) >> 3;
                self.at += bytes as usize;
                self.count += 8 * bytes;
                return;
            }
        }
        self.fill_bytewise();
    }

    #[cold]
    fn fill_bytewise(&mut self) {
        while self.count <= 56 {
            let byte = match self.bytes.get(self.at) {
                Some(0xff) if self.bytes.get(self.at + 1) == Some(&0) => {
                    self.at += 2;
                    0xff
                }
                None | Some(0xff) => {
                    self.made_up += 8;
                    0
                }
                Some(byte) => {
                    self.at += 1;
                    *byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    #[inline(always)]
    fn value(&mut self, size: u32) -> i32 {
        if size == 0 {
            return 0;
        }
        let bits = (self.buffer >> (64 - size)) as u32;
        self.skip(size);
        extended(bits, size)
    }

    /// An entry, once its code is read; of a long code one that is made.
    #[inline(always)]
    fn entry(&mut self, table: &Table) -> Option<u32> {
        let entry = table.entries[(self.buffer >> (64 - LOOKED_UP)) as usize];
        if entry != 0 {
            self.skip(entry & LENGTH);
            return Some(entry);
        }
        self.long(table)
    }

    #[cold]
    fn long(&mut self, table: &Table) -> Option<u32> {
        let bits = (self.buffer >> (64 - LONGEST)) as u32;
        let length = (LOOKED_UP as usize + 1..=LONGEST).find(|length| bits < table.ends[*length])?;
        let place = (bits >> (LONGEST - length)) as i32 + table.offsets[length];
        let symbol = *table.symbols.get(usize::try_from(place).ok()?)?;
        self.skip(length as u32);
        Some(u32::from(symbol) << 8)
    }

    /// Reads a block's coefficients into `block`, multiplied by `steps`, and adds to `first` by how much the first is more than that
    /// of the block before. Gives whether all others are zero; `None` if the bits are no block.
    #[inline(always)]
    pub(super) fn block(
        &mut self,
        [firsts, others]: &[Table; 2],
        steps: &[u16; BLOCK],
        first: &mut i32,
        block: &mut [i16; BLOCK],
    ) -> Option<bool> {
        let scaled = |value: i32, step: u16| value.wrapping_mul(i32::from(step)) as i16;
        self.first(firsts, first)?;
        block[0] = scaled(*first, steps[0]);
        let mut last = 0;
        self.others(others, |place, value| {
            last = place;
            block[usize::from(ZIGZAG[place & 63] & 63)] = scaled(value, steps[place & 63]);
        })?;
        Some(last == 0)
    }

    /// Reads a block that nothing is needed of.
    #[inline(always)]
    pub(super) fn skip_block(&mut self, [firsts, others]: &[Table; 2], first: &mut i32) -> Option<()> {
        self.first(firsts, first)?;
        self.others(others, |_, _| {})
    }

    #[inline(always)]
    fn first(&mut self, table: &Table, first: &mut i32) -> Option<()> {
        self.fill();
        let entry = self.entry(table)?;
        let more = if entry & WITH_VALUE != 0 { i32::from((entry >> 16) as i16) } else { self.value(entry >> 8 & 15) };
        *first = first.wrapping_add(more);
        Some(())
    }

    #[inline(always)]
    fn others(&mut self, table: &Table, mut found: impl FnMut(usize, i32)) -> Option<()> {
        let mut place = 1;
        while place < BLOCK {
            self.fill();
            let entry = self.entry(table)?;
            let symbol = entry >> 8 & 0xff;
            let (run, size) = ((symbol >> 4) as usize, symbol & 15);
            place += run;
            if entry & WITH_VALUE != 0 {
                found(place, i32::from((entry >> 16) as i16));
            } else if size > 0 {
                let value = self.value(size);
                found(place, value);
            } else if run < 15 {
                return (run == 0).then_some(());
            }
            place += 1;
        }
        (place == BLOCK).then_some(())
    }
}
