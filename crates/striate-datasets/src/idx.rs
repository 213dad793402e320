//! The IDX format of the MNIST family: a header of big-endian numbers, then the values.
//!
//! The header is two zero bytes, the element type (`0x08`, uint8, is the only one here), the number of dimensions, and each
//! dimension as 32 bits. Files may be compressed with gzip, which is recognised by its first bytes and not by the name.

use crate::DatasetError;
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use striate_torch::{Budget, note_file};
use tch::{Device, Kind, Tensor};

const UINT8: u8 = 0x08;
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// No deflate stream gives more bytes than this for each of its own.
const MAX_GZIP_RATIO: u64 = 1032;
/// Bytes of memory for each value: one as it is read, and one in the tensor.
const VALUE_BYTES: u64 = 2;

/// Reads grey images: `[N, 1, H, W]`, uint8.
///
/// # Errors
///
/// [`DatasetError::Unsound`] when the file is cut off, too long, empty, or holds something else than uint8 in three dimensions.
pub fn read_images(path: &Path) -> Result<Tensor, DatasetError> {
    read_images_with(path, &Budget::default())
}

/// [`read_images`] of a file that may take so much memory. A file that is compressed can declare far more than its length.
///
/// # Errors
///
/// As [`read_images`].
pub fn read_images_with(path: &Path, budget: &Budget) -> Result<Tensor, DatasetError> {
    let (dims, values) = read(path, 3, budget)?;
    Ok(Tensor::f_from_data_size(&values, &[dims[0], 1, dims[1], dims[2]], Kind::Uint8)?)
}

/// Reads labels: `[N]`, uint8.
///
/// # Errors
///
/// As [`read_images`], for one dimension.
pub fn read_labels(path: &Path) -> Result<Tensor, DatasetError> {
    read_labels_with(path, &Budget::default())
}

/// [`read_labels`] of a file that may take so much memory.
///
/// # Errors
///
/// As [`read_images`], for one dimension.
pub fn read_labels_with(path: &Path, budget: &Budget) -> Result<Tensor, DatasetError> {
    let (dims, values) = read(path, 1, budget)?;
    Ok(Tensor::f_from_data_size(&values, &dims, Kind::Uint8)?)
}

/// Writes grey images (`[N, 1, H, W]`, uint8); a name that ends in `.gz` makes it a gzip file.
///
/// # Errors
///
/// Images of another type or shape, or a file that cannot be written.
pub fn write_images(path: &Path, images: &Tensor) -> Result<(), DatasetError> {
    match images.size()[..] {
        [count, 1, height, width] => write(path, images, &[count, height, width]),
        ref other => Err(DatasetError::option("images", format!("IDX files hold [N, 1, H, W], not {other:?}"))),
    }
}

/// Writes labels (`[N]`, uint8); a name that ends in `.gz` makes it a gzip file.
///
/// # Errors
///
/// Labels of another type or shape, or a file that cannot be written.
pub fn write_labels(path: &Path, labels: &Tensor) -> Result<(), DatasetError> {
    match labels.size()[..] {
        [count] => write(path, labels, &[count]),
        ref other => Err(DatasetError::option("labels", format!("labels are [N], not {other:?}"))),
    }
}

/// The dimensions, `rank` of them, and the values.
fn read(path: &Path, rank: u8, budget: &Budget) -> Result<(Vec<i64>, Vec<u8>), DatasetError> {
    note_file(path);
    let io = |source| DatasetError::io("read", path, source);
    let file = striate_files::open(path)?;
    let length = file.metadata().map_err(io)?.len();
    let allowed = budget.of_file(length) / VALUE_BYTES;
    let mut file = BufReader::new(file);
    let parsed = if file.fill_buf().map_err(io)?.starts_with(&GZIP) {
        parse(MultiGzDecoder::new(file), rank, length.saturating_mul(MAX_GZIP_RATIO), allowed)
    } else {
        parse(file, rank, length, allowed)
    };
    parsed.map_err(|reason| DatasetError::Unsound { path: path.into(), format: "IDX", reason })
}

/// Reads no more than the header declares and one byte, and that only if a source of `at_most` bytes can hold it, and if it is
/// `allowed`.
fn parse(mut reader: impl Read, rank: u8, at_most: u64, allowed: u64) -> Result<(Vec<i64>, Vec<u8>), String> {
    let mut magic = [0; 4];
    reader.read_exact(&mut magic).map_err(header_fault)?;
    match magic {
        [0, 0, UINT8, found] if found == rank => {}
        [0, 0, UINT8, found] => return Err(format!("it has {found} dimensions where {rank} are expected")),
        [0, 0, kind, _] => return Err(format!("its element type is 0x{kind:02x}, and only uint8 (0x08) is read")),
        [a, b, ..] => return Err(format!("it starts with the bytes {a:02x} {b:02x} instead of 00 00")),
    }
    let mut dims = Vec::new();
    for _ in 0..rank {
        let mut dim = [0; 4];
        reader.read_exact(&mut dim).map_err(header_fault)?;
        dims.push(u32::from_be_bytes(dim));
    }
    let shape = dims.iter().map(u32::to_string).collect::<Vec<_>>().join("x");
    let declared = dims.iter().try_fold(1_u64, |product, dim| product.checked_mul(u64::from(*dim)));
    let declared = declared.filter(|declared| *declared <= at_most);
    let declared = declared.ok_or_else(|| format!("it declares {shape} values, more than a file of its length can hold"))?;
    if declared == 0 {
        return Err(format!("it is empty ({shape} values)"));
    }
    if declared > allowed {
        let needed = declared.saturating_mul(VALUE_BYTES);
        return Err(format!(
            "its {shape} values are far more than a compressed file of its length should hold: unpack it with gunzip, or raise \
             the read budget to {needed} bytes, if you trust it"
        ));
    }
    let mut values = Vec::new();
    reader.take(declared + 1).read_to_end(&mut values).map_err(|error| format!("its values cannot be read ({error})"))?;
    match values.len() as u64 {
        read if read < declared => Err(format!("it is cut off after {read} of its {shape} values")),
        read if read > declared => Err(format!("more bytes follow its {shape} values")),
        _ => Ok((dims.into_iter().map(i64::from).collect(), values)),
    }
}

fn header_fault(error: std::io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "it is cut off within its header".to_owned(),
        _ => format!("its header cannot be read ({error})"),
    }
}

fn write(path: &Path, values: &Tensor, dims: &[i64]) -> Result<(), DatasetError> {
    if values.kind() != Kind::Uint8 {
        return Err(DatasetError::option("values", format!("IDX files are written of uint8, not {:?}", values.kind())));
    }
    let mut bytes = vec![0, 0, UINT8, dims.len() as u8];
    for dim in dims {
        let dim = u32::try_from(*dim).map_err(|_| DatasetError::option("values", format!("{dim} is beyond IDX's 32 bits")))?;
        bytes.extend(dim.to_be_bytes());
    }
    let header = bytes.len();
    bytes.resize(header + values.numel(), 0);
    values.f_to_device(Device::Cpu)?.f_contiguous()?.f_copy_data_u8(&mut bytes[header..], values.numel())?;
    let zipped = path.extension().is_some_and(|extension| extension == "gz");
    Ok(striate_files::write(path, |file| {
        if !zipped {
            return file.write_all(&bytes);
        }
        let mut encoder = GzEncoder::new(file, Compression::default());
        encoder.write_all(&bytes)?;
        encoder.finish().map(drop)
    })?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// What reading the images in a file of these bytes fails with.
    fn fault(bytes: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images");
        std::fs::write(&path, bytes).unwrap();
        let error = read_images(&path).unwrap_err().to_string();
        let start = format!("{} is not a sound IDX file: ", path.display());
        error.strip_prefix(&start).unwrap_or_else(|| panic!("{error}")).to_owned()
    }

    fn header(kind: u8, dims: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0, 0, kind, dims.len() as u8];
        dims.iter().for_each(|dim| bytes.extend(dim.to_be_bytes()));
        bytes
    }

    #[test]
    fn every_damage_is_named() {
        let sound = [header(UINT8, &[2, 1, 2]), vec![1, 2, 3, 4]].concat();
        assert_eq!(fault(&sound[..19]), "it is cut off after 3 of its 2x1x2 values");
        assert_eq!(fault(&gzip(&sound[..19])), "it is cut off after 3 of its 2x1x2 values");
        assert_eq!(fault(&[&sound[..], &[5]].concat()), "more bytes follow its 2x1x2 values");
        assert_eq!(fault(&gzip(&[&sound[..], &[5]].concat())), "more bytes follow its 2x1x2 values");
        assert_eq!(fault(&sound[..9]), "it is cut off within its header");
        assert_eq!(fault(b""), "it is cut off within its header");
        assert_eq!(fault(b"<html>not found</html>"), "it starts with the bytes 3c 68 instead of 00 00");
        assert_eq!(fault(&header(0x0d, &[1, 1, 1])), "its element type is 0x0d, and only uint8 (0x08) is read");
        assert_eq!(fault(&header(UINT8, &[4])), "it has 1 dimensions where 3 are expected");
        assert_eq!(fault(&header(UINT8, &[0, 28, 28])), "it is empty (0x28x28 values)");
    }

    #[test]
    fn a_damaged_gzip_stream_is_an_error() {
        let mut zipped = gzip(&[header(UINT8, &[1, 10, 10]), (0..100).collect()].concat());
        assert!(fault(&zipped[..zipped.len() - 9]).contains("cannot be read"), "cut off");
        let checksum = zipped.len() - 8;
        zipped[checksum] ^= 1;
        assert!(fault(&zipped).contains("cannot be read"), "wrong CRC");
    }

    #[test]
    fn absurd_dimensions_allocate_nothing() {
        let max = u32::MAX;
        for dims in [[max, max, max], [max, 2, 1], [1 << 20, 1 << 10, 1 << 10]] {
            let shape = dims.map(|dim| dim.to_string()).join("x");
            let expected = format!("it declares {shape} values, more than a file of its length can hold");
            assert_eq!(fault(&[header(UINT8, &dims), vec![0; 50]].concat()), expected);
            assert_eq!(fault(&gzip(&header(UINT8, &dims))), expected);
        }
    }

    #[test]
    fn a_gzip_bomb_is_left_unread() {
        struct Bomb(u64);
        impl Read for Bomb {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                self.0 += buffer.len() as u64;
                buffer.fill(0);
                Ok(buffer.len())
            }
        }
        let mut bomb = Bomb(0);
        let start = header(UINT8, &[1, 2, 2]);
        assert_eq!(parse(start.chain(&mut bomb), 3, 100, 100).unwrap_err(), "more bytes follow its 1x2x2 values");
        assert!(bomb.0 <= 5, "{} bytes were read", bomb.0);
    }

    #[test]
    fn what_a_small_file_unpacks_to_is_held_against_the_budget() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.gz");
        let count = 80_000_000;
        let bytes = gzip(&[header(UINT8, &[count]), vec![0; count as usize]].concat());
        std::fs::write(&path, &bytes).unwrap();
        let error = read_labels(&path).unwrap_err().to_string();
        assert!(error.contains("its 80000000 values are far more") && error.contains("to 160000000 bytes"), "{error}");
        assert_eq!(read_labels_with(&path, &Budget::of_bytes(160_000_000)).unwrap().size(), [i64::from(count)]);
    }

    #[test]
    fn what_the_format_cannot_hold_is_not_written() {
        let path = Path::new("/nonexistent");
        let zeros = |size: &[i64], kind| Tensor::zeros(size, (kind, Device::Cpu));
        assert!(write_images(path, &zeros(&[1, 3, 2, 2], Kind::Uint8)).unwrap_err().to_string().contains("[1, 3, 2, 2]"));
        assert!(write_labels(path, &zeros(&[1], Kind::Int64)).unwrap_err().to_string().contains("Int64"));
        assert!(write_labels(path, &zeros(&[1, 1], Kind::Uint8)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_written_is_read_back(
            height in 1_i64..5, width in 1_i64..5, labels in prop::collection::vec(any::<u8>(), 1..20), zipped in any::<bool>()
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(if zipped { format!("{name}.gz") } else { name.to_owned() });
            let labels = Tensor::from_slice(&labels);
            let images = labels.view([-1, 1, 1, 1]).repeat([1, 1, height, width]);
            write_images(&path("images"), &images).unwrap();
            write_labels(&path("labels"), &labels).unwrap();
            prop_assert_eq!(read_images(&path("images")).unwrap(), images);
            prop_assert_eq!(read_labels(&path("labels")).unwrap(), labels);
            let start = std::fs::read(path("labels")).unwrap();
            prop_assert_eq!(start.starts_with(&GZIP), zipped);
        }
    }
}
