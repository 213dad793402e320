//! MATLAB's files of version 5, as far as datasets need them: arrays of uint8, compressed or not.
//!
//! A file is a header of 128 bytes and elements: each has a type and a length (32 bits each), and
//! the bytes, to a multiple of 8. A short element has its type and length in 16 bits each, and its
//! bytes in the 4 that follow. A variable is an element of elements: flags, dimensions, name,
//! values. It may be within a zlib stream.

use super::open;
use crate::DatasetError;
use flate2::read::ZlibDecoder;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;
use striate_torch::Budget;

const HEADER: usize = 128;
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
/// The first and last class of arrays that are numbers: double, and uint64.
const NUMBERS: std::ops::RangeInclusive<u8> = 6..=15;
const COMPLEX: u8 = 0x08;
/// MATLAB allows 63 letters.
const LONGEST_NAME: u32 = 255;
const MOST_DIMENSIONS: u32 = 32;

/// What is given each array of uint8: its name, dimensions (the first one's index counts fastest in
/// memory) and values.
pub(super) type Each<'a> = &'a mut dyn FnMut(&str, &[u64], &mut dyn Read) -> Result<(), Fault>;

/// Why a file cannot be read.
pub(super) enum Fault {
    /// What is wrong in it.
    Unsound(String),
    /// Something else, such as a lack of memory.
    Other(DatasetError),
}

impl From<DatasetError> for Fault {
    fn from(error: DatasetError) -> Self {
        Self::Other(error)
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Unsound(reason)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Unsound(match error.kind() {
            ErrorKind::UnexpectedEof => "it is cut off".to_owned(),
            _ => format!("it cannot be read ({error})"),
        })
    }
}

/// Gives `each` array that the file has and `wanted` names. Others are passed over.
pub(super) fn arrays(path: &Path, wanted: &[&str], budget: &Budget, each: Each) -> Result<(), DatasetError> {
    let (file, length) = open(path)?;
    let mut file = BufReader::new(file);
    let allowed = budget.of_file(length);
    elements(&mut file, length, wanted, allowed, each).map_err(|fault| match fault {
        Fault::Unsound(reason) => DatasetError::Unsound { path: path.into(), format: "MATLAB", reason },
        Fault::Other(error) => error,
    })
}

fn elements(file: &mut impl Read, length: u64, wanted: &[&str], allowed: u64, each: Each) -> Result<(), Fault> {
    let mut header = [0; HEADER];
    file.read_exact(&mut header)?;
    match &header[124..] {
        [0, 1, b'I', b'M'] => {}
        [_, _, b'M', b'I'] => return Err("its numbers are big-endian, and only little-endian ones are read".to_owned().into()),
        [0, 2, ..] => return Err("it is of version 7.3 (HDF5), and only version 5 is read".to_owned().into()),
        _ => return Err("it does not start with the header of version 5".to_owned().into()),
    }
    let mut left = length.saturating_sub(HEADER as u64);
    while left > 0 {
        let [kind, size] = words(file)?;
        left = left.checked_sub(8 + u64::from(size)).ok_or_else(|| "it is cut off".to_owned())?;
        let mut element = file.by_ref().take(size.into());
        match kind {
            COMPRESSED => compressed(&mut element, wanted, allowed, each)?,
            MATRIX => matrix(&mut element, wanted, allowed, each)?,
            _ => {}
        }
        // What was not wanted.
        std::io::copy(&mut element, &mut std::io::sink())?;
    }
    Ok(())
}

fn compressed(element: &mut impl Read, wanted: &[&str], allowed: u64, each: Each) -> Result<(), Fault> {
    let mut unpacked = ZlibDecoder::new(element);
    match words(&mut unpacked)? {
        [MATRIX, _] => matrix(&mut unpacked, wanted, allowed, each),
        _ => Ok(()),
    }
}

/// A variable, which `each` is given if it is wanted.
fn matrix(reader: &mut impl Read, wanted: &[&str], allowed: u64, each: Each) -> Result<(), Fault> {
    let flags = small(reader, UINT32, 8)?;
    let dims = small(reader, INT32, 4 * MOST_DIMENSIONS)?;
    let name = small(reader, INT8, LONGEST_NAME)?;
    let Some(name) = wanted.iter().find(|wanted| wanted.as_bytes() == name) else { return Ok(()) };
    let [class, bits, ..] = flags[..] else { return Err(format!("the flags of {name} are cut off").into()) };
    if !NUMBERS.contains(&class) || bits & COMPLEX != 0 {
        return Err(format!("{name} is no array of numbers").into());
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let dims: Vec<u64> = dims.chunks(4).map(number).collect();
    let shape = dims.iter().map(u64::to_string).collect::<Vec<_>>().join("x");
    let (kind, size, short) = tag(reader)?;
    if kind != UINT8 {
        return Err(format!("{name} has values of type {kind}, and only uint8 (2) is read").into());
    }
    if dims.iter().try_fold(1_u64, |product, dim| product.checked_mul(*dim)) != Some(size.into()) {
        return Err(format!("{name} has {size} values for {shape}").into());
    }
    if u64::from(size) > allowed {
        return Err(format!(
            "{name} has {size} values, far more than a file of its length should hold: raise the read budget to {size} bytes, if you \
             trust it"
        )
        .into());
    }
    match short {
        Some(bytes) => each(name, &dims, &mut &bytes[..]),
        None => each(name, &dims, &mut reader.take(size.into())),
    }
}

/// The type and length of an element, and the bytes of a short one.
fn tag(reader: &mut impl Read) -> Result<(u32, u32, Option<Vec<u8>>), Fault> {
    let [first, second] = words(reader)?;
    match (first & 0xffff, first >> 16) {
        (_, 0) => Ok((first, second, None)),
        (kind, size @ 1..=4) => Ok((kind, size, Some(second.to_le_bytes()[..size as usize].to_vec()))),
        (_, size) => Err(format!("a short element has {size} bytes").into()),
    }
}

/// The bytes of an element of this type that has no more than `at_most`.
fn small(reader: &mut impl Read, expected: u32, at_most: u32) -> Result<Vec<u8>, Fault> {
    let (kind, size, short) = tag(reader)?;
    if kind != expected || size > at_most {
        return Err(
            format!("a variable has {size} bytes of type {kind} where up to {at_most} of type {expected} are expected").into()
        );
    }
    if let Some(bytes) = short {
        return Ok(bytes);
    }
    let mut bytes = vec![0; size.next_multiple_of(8) as usize];
    reader.read_exact(&mut bytes)?;
    bytes.truncate(size as usize);
    Ok(bytes)
}

fn words(reader: &mut impl Read) -> Result<[u32; 2], Fault> {
    let mut bytes = [[0; 4]; 2];
    reader.read_exact(bytes.as_flattened_mut())?;
    Ok(bytes.map(u32::from_le_bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use std::io::Write;

    type Array = (String, Vec<u64>, Vec<u8>);

    fn read_with(bytes: &[u8], budget: &Budget) -> Result<Vec<Array>, DatasetError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.mat");
        std::fs::write(&path, bytes).unwrap();
        let mut found = Vec::new();
        arrays(&path, &["X", "y"], budget, &mut |name, dims, values| {
            let mut bytes = Vec::new();
            values.read_to_end(&mut bytes)?;
            found.push((name.to_owned(), dims.to_vec(), bytes));
            Ok(())
        })?;
        Ok(found)
    }

    fn read(bytes: &[u8]) -> Vec<Array> {
        read_with(bytes, &Budget::default()).unwrap()
    }

    /// What reading a file of these bytes fails with.
    fn fault(bytes: &[u8]) -> String {
        let error = read_with(bytes, &Budget::default()).unwrap_err().to_string();
        error.split_once(" is not a sound MATLAB file: ").unwrap_or_else(|| panic!("{error}")).1.to_owned()
    }

    fn element(kind: u32, content: &[u8]) -> Vec<u8> {
        let mut element = [&kind.to_le_bytes()[..], &(content.len() as u32).to_le_bytes(), content].concat();
        element.resize(element.len().next_multiple_of(8), 0);
        element
    }

    /// A variable of a class, with values of a type.
    fn variable(class: u8, name: &str, dims: &[i32], kind: u32, values: &[u8]) -> Vec<u8> {
        let dims: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
        let flags = element(UINT32, &[class, 0, 0, 0, 0, 0, 0, 0]);
        element(MATRIX, &[flags, element(INT32, &dims), element(INT8, name.as_bytes()), element(kind, values)].concat())
    }

    fn file(elements: &[Vec<u8>]) -> Vec<u8> {
        let mut header = b"MATLAB 5.0 MAT-file".to_vec();
        header.resize(124, b' ');
        [header, vec![0, 1, b'I', b'M'], elements.concat()].concat()
    }

    fn compress(element: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(element).unwrap();
        let content = encoder.finish().unwrap();
        // Without padding.
        [&COMPRESSED.to_le_bytes()[..], &(content.len() as u32).to_le_bytes(), &content].concat()
    }

    #[test]
    fn arrays_come_as_they_lie() {
        let other = variable(6, "z", &[1, 1], 9, &[0; 8]);
        let x = variable(9, "X", &[2, 3], UINT8, &[1, 2, 3, 4, 5, 6]);
        // Short elements hold their bytes in the tag.
        let y = [
            &flags_of(6)[..],
            &element(INT32, &[2, 0, 0, 0, 1, 0, 0, 0]),
            &[1, 0, 1, 0, b'y', 0, 0, 0],
            &[2, 0, 2, 0, 7, 8, 0, 0],
        ];
        let y = element(MATRIX, &y.concat());
        let expected = [("X".to_owned(), vec![2, 3], vec![1, 2, 3, 4, 5, 6]), ("y".to_owned(), vec![2, 1], vec![7, 8])];
        assert_eq!(read(&file(&[other.clone(), x.clone(), y.clone()])), expected);
        assert_eq!(read(&file(&[compress(&x), compress(&other), element(9, &[0; 16]), y])), expected);
    }

    fn flags_of(class: u8) -> Vec<u8> {
        element(UINT32, &[class, 0, 0, 0, 0, 0, 0, 0])
    }

    #[test]
    fn every_damage_is_told() {
        let sound = file(&[variable(9, "X", &[2, 3], UINT8, &[1, 2, 3, 4, 5, 6])]);
        for length in [10, 130, 150, sound.len() - 1] {
            assert_eq!(fault(&sound[..length]), "it is cut off", "{length}");
        }
        let zipped = file(&[compress(&variable(9, "X", &[2, 3], UINT8, &[1, 2, 3, 4, 5, 6]))]);
        assert_eq!(fault(&zipped[..zipped.len() - 9]), "it is cut off");
        let mut garbled = zipped;
        garbled[138] ^= 0xff;
        assert!(fault(&garbled).starts_with("it cannot be read ("), "{}", fault(&garbled));
        let start = |bytes: [u8; 4]| [&sound[..124], &bytes, &sound[128..]].concat();
        assert!(fault(&start(*b"\x01\0MI")).contains("big-endian"));
        assert!(fault(&start(*b"\0\x02IM")).contains("version 7.3"));
        assert_eq!(fault(&[b'x'; 200]), "it does not start with the header of version 5");
        let told = |variable: Vec<u8>| fault(&file(&[variable]));
        assert_eq!(told(variable(9, "X", &[2, 4], UINT8, &[0; 6])), "X has 6 values for 2x4");
        assert_eq!(told(variable(9, "X", &[-1, -1], UINT8, &[0; 6])), "X has 6 values for 4294967295x4294967295");
        assert_eq!(told(variable(9, "X", &[1, 1], 9, &[0; 8])), "X has values of type 9, and only uint8 (2) is read");
        assert_eq!(told(variable(1, "X", &[1, 1], UINT8, &[0])), "X is no array of numbers");
        let long = element(MATRIX, &[flags_of(9), element(INT32, &[0; 400])].concat());
        assert_eq!(told(long), "a variable has 400 bytes of type 5 where up to 128 of type 5 are expected");
        let short = element(MATRIX, &[flags_of(9), vec![5, 0, 9, 0, 0, 0, 0, 0]].concat());
        assert_eq!(told(short), "a short element has 9 bytes");
    }

    #[test]
    fn what_a_small_file_unpacks_to_is_held_against_the_budget() {
        let count = 80_000_000;
        let bytes = file(&[compress(&variable(9, "X", &[count, 1], UINT8, &vec![0; count as usize]))]);
        assert!(bytes.len() < 1_000_000);
        assert!(fault(&bytes).starts_with("X has 80000000 values, far more than a file of its length should hold"));
        assert_eq!(read_with(&bytes, &Budget::of_bytes(80_000_000)).unwrap()[0].1, [80_000_000, 1]);
    }
}
