//! What files of hostile people cost: the corpus of the fuzz targets with changes to it, and small files that declare much.
//! `docs/security.md` says what is promised.
#![allow(clippy::unwrap_used)]

mod bombs;
mod readers;

use readers::{READERS, Reader};
use std::fs;
use std::path::Path;
use striate_torch::{peak_memory, reset_peak_memory, resident_memory};

/// The most memory that a file of less than 1 MB may take to read.
const MOST_BYTES: u64 = 256 << 20;
/// Changes to each file of the corpus.
const CHANGES: u64 = 600;

/// How much memory it takes to give a reader these bytes. On other systems than Linux that is not known, and 0.
fn taken(reader: Reader, bytes: &[u8]) -> u64 {
    // Forgets the peak of what came before.
    reset_peak_memory();
    let before = resident_memory().unwrap_or_default();
    reader(bytes);
    peak_memory().unwrap_or_default().saturating_sub(before)
}

/// The next number of a sequence that is the same in every run (Marsaglia's xorshift).
fn draw(state: &mut u64, below: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state % below.max(1) as u64) as usize
}

/// The bytes after a few changes of the kinds that fuzzers make.
fn changed(bytes: &[u8], other: &[u8], seed: u64) -> Vec<u8> {
    const ODD: [u8; 8] = [0, 1, 0x7f, 0x80, 0xfe, 0xff, b'9', b'"'];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = bytes.to_vec();
    for _ in 0..=draw(&mut state, 4) {
        let place = draw(&mut state, bytes.len());
        let length = 1 + draw(&mut state, 8);
        let end = (place + length).min(bytes.len());
        match draw(&mut state, 7) {
            0 if !bytes.is_empty() => bytes[place] ^= 1 << draw(&mut state, 8),
            1 if !bytes.is_empty() => bytes[place] = ODD[draw(&mut state, ODD.len())],
            2 => bytes[place..end].fill(0xff),
            3 => bytes.truncate(place),
            4 => _ = bytes.drain(place..end),
            5 => {
                let again = bytes[place..end].to_vec();
                bytes.splice(place..place, again);
            }
            _ => {
                let from = draw(&mut state, other.len());
                bytes.splice(place..end, other[from..].iter().copied().take(length));
            }
        }
    }
    bytes
}

#[test]
fn changed_files_are_read_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, reader) in READERS {
        let mut files: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name}");
        let files: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        reader(&files[0]); // what it loads once is not counted
        let taken = taken_by_all(reader, &files);
        assert!(taken < MOST_BYTES, "{name}: {taken} bytes");
    }
}

/// The most memory that a file of the corpus, or a change of one, takes.
fn taken_by_all(reader: Reader, files: &[Vec<u8>]) -> u64 {
    reset_peak_memory();
    let before = resident_memory().unwrap_or_default();
    for (bytes, number) in files.iter().zip(0..) {
        reader(bytes);
        let other = &files[(number as usize + 1) % files.len()];
        for change in 0..CHANGES {
            reader(&changed(bytes, other, number * CHANGES + change));
        }
    }
    peak_memory().unwrap_or_default().saturating_sub(before)
}

#[test]
fn small_files_that_declare_much_take_little() {
    for (reader, name, bytes) in bombs::all() {
        assert!(bytes.len() < 1_000_000, "{name} has {} bytes", bytes.len());
        let reader = READERS.iter().find(|(known, _)| *known == reader).unwrap().1;
        let taken = taken(reader, &bytes);
        assert!(taken < MOST_BYTES, "{name}: {taken} bytes for {}", bytes.len());
    }
}
