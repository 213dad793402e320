//! What stands before a JPEG's data.

use super::bits::Table;

/// The place of each coefficient of a block, row by row, in the order in which they come.
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28, 35, 42,
    49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// One of luma, blue and red.
pub(super) struct Component {
    /// Blocks across and down in a unit of the data.
    pub(super) blocks: [usize; 2],
    /// What each coefficient is multiplied by, in the order in which they come.
    pub(super) steps: [u16; 64],
    /// What a block's first coefficient and the others are coded with.
    pub(super) tables: [Table; 2],
}

/// A JPEG of the kind that cameras and most programs write: baseline, grey or in luma, blue and red, all in one scan.
pub(super) struct Header<'a> {
    /// Width and height.
    pub(super) size: [usize; 2],
    /// One, or three of which the last two have one block in a unit.
    pub(super) components: Vec<Component>,
    /// How many units come between two markers, where there are any.
    pub(super) restart: Option<usize>,
    /// What cameras note, such as how they were held.
    pub(super) exif: Option<&'a [u8]>,
    /// The data, and all that follows.
    pub(super) data: &'a [u8],
}

/// A component of the frame, with the numbers of its tables.
struct Frame {
    id: u8,
    blocks: [usize; 2],
    steps: usize,
}

impl<'a> Header<'a> {
    /// Reads a header. `None` if it is of another kind or unsound: then another decoder has the word.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[0xff, 0xd8])?;
        let (mut steps, mut tables) = ([None; 4], [const { [None, None, None, None] }; 2]);
        let (mut size, mut frame, mut restart, mut exif) = ([0; 2], Vec::new(), None, None);
        loop {
            let [0xff, marker, high, low, ..] = *rest else { return None };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let (segment, after) = rest.get(4..2 + length).zip(rest.get(2 + length..))?;
            match marker {
                0xdb => read_steps(segment, &mut steps)?,
                0xc4 => read_tables(segment, &mut tables)?,
                0xc0 | 0xc1 if frame.is_empty() => (size, frame) = read_frame(segment)?,
                0xdd => restart = Some(usize::from(u16::from_be_bytes(segment.try_into().ok()?))).filter(|units| *units > 0),
                0xda => {
                    let components = read_scan(segment, &frame, &steps, &tables)?;
                    return Some(Self { size, components, restart, exif, data: after });
                }
                0xe1 => exif = exif.or(segment.strip_prefix(b"Exif\0\0")),
                // Adobe's note that colours are none of luma, blue and red.
                0xee if segment.starts_with(b"Adobe") && segment.get(11) != Some(&1) => return None,
                0xe0..=0xef | 0xfe => {}
                _ => return None,
            }
            rest = after;
        }
    }
}

/// What coefficients are multiplied by; each table has a number.
fn read_steps(mut segment: &[u8], steps: &mut [Option<[u16; 64]>; 4]) -> Option<()> {
    while let Some((kind, rest)) = segment.split_first() {
        let bytes = if *kind < 0x10 { 1 } else { 2 };
        let (values, rest) = rest.split_at_checked(64 * bytes)?;
        let mut table = [0; 64];
        for (step, value) in table.iter_mut().zip(values.chunks_exact(bytes)) {
            *step = value.iter().fold(0, |step, byte| step << 8 | u16::from(*byte));
        }
        *steps.get_mut(usize::from(kind & 0x0f))? = Some(table);
        segment = rest;
    }
    Some(())
}

/// Codes, for first coefficients and for others.
fn read_tables(mut segment: &[u8], tables: &mut [[Option<Table>; 4]; 2]) -> Option<()> {
    while let Some((kind, rest)) = segment.split_first() {
        let (counts, rest) = rest.split_first_chunk::<16>()?;
        let total = counts.iter().map(|count| usize::from(*count)).sum();
        let (symbols, rest) = rest.split_at_checked(total)?;
        let class = usize::from(kind >> 4);
        *tables.get_mut(class)?.get_mut(usize::from(kind & 0x0f))? = Some(Table::new(counts, symbols, class == 1)?);
        segment = rest;
    }
    Some(())
}

fn read_frame(segment: &[u8]) -> Option<([usize; 2], Vec<Frame>)> {
    let (&[8, h1, h0, w1, w0, count], components) = segment.split_first_chunk()? else { return None };
    let size = [[w1, w0], [h1, h0]].map(|bytes| usize::from(u16::from_be_bytes(bytes)));
    let frame = |&[id, sampling, steps]: &[u8; 3]| Frame {
        id,
        blocks: [sampling >> 4, sampling & 0x0f].map(usize::from),
        steps: usize::from(steps),
    };
    let mut frame: Vec<Frame> = components.as_chunks().0.iter().map(frame).collect();
    let sound = frame.len() == usize::from(count) && components.len() == 3 * frame.len() && size[0].min(size[1]) > 0;
    let known = match &mut frame[..] {
        [grey] => {
            // Of one component, units are blocks.
            grey.blocks = [1, 1];
            true
        }
        [luma, blue, red] => {
            let named = [luma.id, blue.id, red.id] != *b"RGB";
            let halved =
                luma.blocks.iter().all(|blocks| (1..=2).contains(blocks)) && blue.blocks == [1, 1] && red.blocks == [1, 1];
            named && halved
        }
        _ => false,
    };
    (sound && known).then_some((size, frame))
}

fn read_scan(
    segment: &[u8],
    frame: &[Frame],
    steps: &[Option<[u16; 64]>; 4],
    tables: &[[Option<Table>; 4]; 2],
) -> Option<Vec<Component>> {
    let (count, rest) = segment.split_first()?;
    let (chosen, end) = rest.split_at_checked(2 * frame.len())?;
    if frame.is_empty() || usize::from(*count) != frame.len() || end != [0, 63, 0] {
        return None;
    }
    let component = |(frame, &[id, chosen]): (&Frame, &[u8; 2])| {
        let table = |class: usize, number: u8| tables[class].get(usize::from(number))?.clone();
        let tables = [table(0, chosen >> 4)?, table(1, chosen & 0x0f)?];
        (id == frame.id).then_some(Component { blocks: frame.blocks, steps: (*steps.get(frame.steps)?)?, tables })
    };
    frame.iter().zip(chosen.as_chunks().0).map(component).collect()
}
