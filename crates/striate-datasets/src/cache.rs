//! Pictures that are decoded once, and kept in memory or in a file.

use crate::folder::side_by_side;
use crate::{Batch, Dataset, DatasetError, Examples, PictureFile, Pixels, Task, View};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use striate_files::FilesError;
use tch::Tensor;

/// What the file begins with; another number for another layout.
const MAGIC: &[u8; 8] = b"STPIXEL1";
/// Another number makes what an older decoder left stale.
const DECODER: u32 = 1;
/// Bytes of a key: SHA-256, in letters.
const KEY: usize = 64;
/// Bytes of a picture's entry: where it begins, width, height and channels.
const ENTRY: usize = 20;
/// Pictures that are decoded between two calls of `progress`.
const AT_ONCE: usize = 256;

/// Where a dataset's pictures are kept once they are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Cache {
    /// In memory, if all have the network's size before transforms and take no more than 512 MiB; else nowhere.
    #[default]
    Auto,
    /// Nowhere: each is decoded in each epoch.
    Off,
    /// In memory, from the first epoch on.
    Memory,
    /// In a file, which later runs find again.
    File,
}

impl Cache {
    /// The bytes up to which pictures are kept in memory by default.
    pub const SMALL: u64 = 512 * 1024 * 1024;
}

/// A dataset whose pictures are decoded once. No value of a batch changes.
///
/// What is kept is what transforms start from: pictures in the dataset's shape, or, for transforms that size pictures themselves,
/// whole pictures.
pub struct Cached {
    dataset: Box<dyn Dataset>,
    examples: Arc<dyn Examples>,
}

impl std::fmt::Debug for Cached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cached").field("dataset", &self.dataset.name()).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Cached {
    /// Keeps each picture in memory from the first time on that it is asked for. `whole` keeps pictures as they lie in the dataset.
    ///
    /// # Errors
    ///
    /// See [`Dataset::examples`].
    pub fn in_memory(dataset: Box<dyn Dataset>, whole: bool) -> Result<Self, DatasetError> {
        let pictures = std::iter::repeat_with(OnceLock::new).take(dataset.len()).collect();
        let examples = InMemory { examples: dataset.examples()?, whole, pictures, kept: AtomicUsize::new(0) };
        Ok(Self { dataset, examples: Arc::new(examples) })
    }

    /// Keeps pictures in `file`, which is made first unless it has these already: of these files, which have not changed, by this
    /// decoder. It takes height x width x channels bytes for each. `progress` gets the number of pictures done and the total;
    /// return `false` from it to stop.
    ///
    /// # Errors
    ///
    /// A picture that cannot be read; a file that cannot be written, as on a full disk, which leaves none; data that do not lie in
    /// files; an interruption.
    pub fn in_file(
        dataset: Box<dyn Dataset>,
        whole: bool,
        file: &Path,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Self, DatasetError> {
        let examples = dataset.examples()?;
        // How pictures of two sizes are fitted tells how all are.
        let fits = [[997, 811], [811, 997]].map(|has| examples.fit(has));
        let about = format!("{DECODER} {} {:?} {whole} {fits:?}\n", dataset.len(), dataset.shape());
        let Some(key) = fingerprint(about, (0..dataset.len()).map(|index| examples.file(index)?.stamp())) else {
            let reason = format!("the pictures of {} are no files that are still there: keep them in memory", dataset.name());
            return Err(DatasetError::option("cache", reason));
        };
        let open = || InFile::open(file, &key, &examples, dataset.len(), whole);
        let kept = match open() {
            Ok(kept) => kept,
            Err(why) => {
                if let Some(why) = why {
                    tracing::info!("{}: {why}, so it is made anew", file.display());
                }
                write(file, &key, &*examples, dataset.len(), whole, progress)?;
                let unreadable = |why: Option<&'static str>| io::Error::other(why.unwrap_or("it has vanished"));
                open().map_err(|why| DatasetError::io("read", file, unreadable(why)))?
            }
        };
        Ok(Self { dataset, examples: Arc::new(kept) })
    }
}

impl Dataset for Cached {
    fn name(&self) -> &str {
        self.dataset.name()
    }

    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }

    fn shape(&self) -> [i64; 3] {
        self.dataset.shape()
    }

    fn task(&self) -> Task {
        self.dataset.task()
    }

    fn examples(&self) -> Result<Arc<dyn Examples>, DatasetError> {
        Ok(Arc::clone(&self.examples))
    }

    fn batch(&self, indices: &Tensor) -> Result<Batch, DatasetError> {
        self.dataset.batch(indices)
    }
}

/// SHA-256 of a text and of what pictures are made from; none if that is not known of one.
pub(crate) fn fingerprint(about: String, mut pictures: impl Iterator<Item = Option<Vec<u8>>>) -> Option<String> {
    /// Texts one after another, of which only one is in memory.
    struct Texts<'a>(Vec<u8>, usize, &'a mut dyn FnMut() -> Option<Vec<u8>>);
    impl Read for Texts<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            while self.1 == self.0.len() {
                match (self.2)() {
                    Some(next) => (self.0, self.1) = (next, 0),
                    None => return Ok(0),
                }
            }
            let read = (&self.0[self.1..]).read(to)?;
            self.1 += read;
            Ok(read)
        }
    }
    let mut unknown = false;
    let mut next = || {
        let text = pictures.next()?;
        unknown |= text.is_none();
        text
    };
    let hash = striate_fetch::sha256_reader(Texts(about.into_bytes(), 0, &mut next)).ok()?;
    (!unknown).then_some(hash)
}

/// What is kept of a picture.
fn kept(examples: &dyn Examples, index: usize, whole: bool) -> Result<Pixels<'_>, DatasetError> {
    if whole { examples.picture(index) } else { examples.viewed(index, &mut |has| Ok(examples.fit(has))) }
}

/// What a kept picture needs to be of the dataset's shape.
fn rest_of_fit(examples: &dyn Examples, whole: bool, has: [usize; 2]) -> View {
    if whole { examples.fit(has) } else { View::whole(has) }
}

struct InMemory {
    examples: Arc<dyn Examples>,
    whole: bool,
    pictures: Vec<OnceLock<Kept>>,
    kept: AtomicUsize,
}

/// Width, height, channels and samples.
struct Kept([u32; 3], Box<[u8]>);

impl Examples for InMemory {
    fn picture(&self, index: usize) -> Result<Pixels<'_>, DatasetError> {
        let place = self.pictures.get(index).ok_or_else(|| crate::dataset::no_example(index, self.pictures.len()))?;
        let Kept([width, height, channels], data) = match place.get() {
            Some(kept) => kept,
            None => {
                let picture = kept(&*self.examples, index, self.whole)?;
                let size = [picture.width, picture.height, picture.channels].map(|size| size as u32);
                // Two threads may decode the same.
                place.get_or_init(|| {
                    self.kept.fetch_add(1, Ordering::Relaxed);
                    Kept(size, picture.data.into_owned().into_boxed_slice())
                })
            }
        };
        Ok(Pixels::new([*width as usize, *height as usize], *channels as usize, &**data))
    }

    fn fit(&self, has: [usize; 2]) -> View {
        rest_of_fit(&*self.examples, self.whole, has)
    }

    fn label(&self, index: usize) -> i64 {
        self.examples.label(index)
    }

    fn in_memory(&self) -> bool {
        self.kept.load(Ordering::Relaxed) == self.pictures.len()
    }

    fn labels(&self, index: usize) -> Cow<'_, [i64]> {
        self.examples.labels(index)
    }

    fn shards(&self) -> Vec<Range<usize>> {
        self.examples.shards()
    }

    fn file(&self, index: usize) -> Option<&PictureFile> {
        self.examples.file(index)
    }
}

/// A file: magic, key, pictures, entries, and where the entries begin. It is read, not mapped: if somebody cuts it off meanwhile, a
/// mapping would end the process, and reading is an error. The system keeps what is read often in memory in either case.
struct InFile {
    examples: Arc<dyn Examples>,
    whole: bool,
    path: PathBuf,
    file: File,
    entries: Vec<u8>,
    /// Where the pictures end.
    end: u64,
}

impl InFile {
    /// Fails with what is wrong with the file; with nothing if there is none.
    fn open(path: &Path, key: &str, examples: &Arc<dyn Examples>, len: usize, whole: bool) -> Result<Self, Option<&'static str>> {
        let file = match striate_files::open(path) {
            Ok(file) => file,
            Err(FilesError { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Err(None),
            Err(_) => return Err(Some("it cannot be read")),
        };
        let cut = |_| Some("it is cut off or damaged");
        let length = file.metadata().map_err(cut)?.len();
        let (mut head, mut foot) = ([0; MAGIC.len() + KEY], [0; 8]);
        file.read_exact_at(&mut head, 0).map_err(cut)?;
        if head != *[&MAGIC[..], key.as_bytes()].concat() {
            return Err(Some("its pictures have changed"));
        }
        file.read_exact_at(&mut foot, length - 8).map_err(cut)?;
        let end = u64::from_le_bytes(foot);
        if (length - 8).checked_sub(end) != Some((len * ENTRY) as u64) {
            return Err(Some("it is cut off or damaged"));
        }
        let mut entries = vec![0; len * ENTRY];
        file.read_exact_at(&mut entries, end).map_err(cut)?;
        Ok(Self { examples: Arc::clone(examples), whole, path: path.into(), file, entries, end })
    }
}

impl Examples for InFile {
    fn picture(&self, index: usize) -> Result<Pixels<'_>, DatasetError> {
        let entry = self.entries.as_chunks::<ENTRY>().0.get(index);
        let entry = entry.ok_or_else(|| crate::dataset::no_example(index, self.entries.len() / ENTRY))?;
        let number =
            |from: usize, bytes: usize| entry[from..from + bytes].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (start, [width, height, channels]) = (number(0, 8), [8, 12, 16].map(|from| number(from, 4)));
        let fault = |error: io::Error| DatasetError::io("read", &self.path, error);
        let len = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(channels)).filter(|len| *len > 0);
        let len = len.filter(|len| start.checked_add(*len).is_some_and(|end| end <= self.end));
        let mut data = vec![0; len.ok_or_else(|| fault(io::Error::other("it is damaged: delete it")))? as usize];
        self.file.read_exact_at(&mut data, start).map_err(fault)?;
        let [width, height, channels] = [width, height, channels].map(|size| size as usize);
        Ok(Pixels::new([width, height], channels, data))
    }

    fn fit(&self, has: [usize; 2]) -> View {
        rest_of_fit(&*self.examples, self.whole, has)
    }

    fn label(&self, index: usize) -> i64 {
        self.examples.label(index)
    }

    fn labels(&self, index: usize) -> Cow<'_, [i64]> {
        self.examples.labels(index)
    }

    fn shards(&self) -> Vec<Range<usize>> {
        self.examples.shards()
    }

    fn file(&self, index: usize) -> Option<&PictureFile> {
        self.examples.file(index)
    }
}

fn write(
    path: &Path,
    key: &str,
    examples: &dyn Examples,
    len: usize,
    whole: bool,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<(), DatasetError> {
    let mut fault = None;
    let written = striate_files::write(path, |file| {
        file.write_all(&[&MAGIC[..], key.as_bytes()].concat())?;
        let (mut place, mut entries) = ((MAGIC.len() + KEY) as u64, Vec::with_capacity(len * ENTRY));
        let indices: Vec<usize> = (0..len).collect();
        for (done, chunk) in (0..).step_by(AT_ONCE).zip(indices.chunks(AT_ONCE)) {
            let stopped = (!progress(done, len)).then_some(DatasetError::Interrupted);
            let pictures = match stopped {
                Some(stopped) => Err(stopped),
                None => side_by_side(chunk, |index| kept(examples, *index, whole)).into_iter().collect::<Result<Vec<_>, _>>(),
            };
            let pictures = pictures.map_err(|error| {
                fault = Some(error);
                io::Error::other("a picture")
            })?;
            for picture in pictures {
                let sizes = [picture.width, picture.height, picture.channels].map(|size| (size as u32).to_le_bytes());
                entries.extend(place.to_le_bytes());
                entries.extend(sizes.concat());
                file.write_all(&picture.data)?;
                place += picture.data.len() as u64;
            }
        }
        file.write_all(&entries)?;
        file.write_all(&place.to_le_bytes())
    });
    match fault {
        Some(fault) => Err(fault),
        None => {
            written?;
            progress(len, len);
            Ok(())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::folder::tests::{flowers, preprocess};
    use crate::{ImageFolder, Loader, LoaderOptions, Transform};
    use std::fs;

    fn folder(root: &Path) -> Box<dyn Dataset> {
        Box::new(ImageFolder::open(root, preprocess(8)).unwrap())
    }

    fn epoch(data: &dyn Dataset, preset: &str, workers: usize) -> Tensor {
        let options = LoaderOptions {
            transforms: Transform::preset(preset).unwrap(),
            workers: Some(workers),
            ..LoaderOptions::train(3, 4)
        };
        let loader = Loader::new(data, preprocess(8), options).unwrap();
        let batches: Vec<_> = loader.epoch(1).unwrap().map(|batch| batch.unwrap().images).collect();
        Tensor::cat(&batches, 0)
    }

    fn go_on(_: usize, _: usize) -> bool {
        true
    }

    #[test]
    fn a_cache_changes_no_bit() {
        let (flowers, kept) = (flowers(), tempfile::tempdir().unwrap());
        let root = flowers.path();
        for (preset, whole) in [("cifar", false), ("imagenet-train", true), ("none", false)] {
            let expected = epoch(&*folder(root), preset, 0);
            let memory = Cached::in_memory(folder(root), whole).unwrap();
            let file = kept.path().join(preset);
            let in_file = Cached::in_file(folder(root), whole, &file, &mut go_on).unwrap();
            assert!(!memory.examples().unwrap().in_memory());
            for workers in [2, 0] {
                assert_eq!(epoch(&memory, preset, workers), expected, "{preset} in memory");
                assert_eq!(epoch(&in_file, preset, workers), expected, "{preset} in a file");
            }
            assert!(memory.examples().unwrap().in_memory());
        }
    }

    #[test]
    fn a_file_is_found_again_until_its_pictures_change_or_it_is_cut() {
        let (flowers, kept) = (flowers(), tempfile::tempdir().unwrap());
        let (root, file) = (flowers.path(), kept.path().join("below/pixels"));
        let made = |whole| {
            let mut calls = 0;
            Cached::in_file(folder(root), whole, &file, &mut |_, _| {
                calls += 1;
                true
            })
            .unwrap();
            calls > 0
        };
        assert!(made(false));
        assert!(!made(false), "it is found again");
        // Four pictures of 8x8 in three channels, with their entries, what it was made from, and an end.
        assert_eq!(fs::metadata(&file).unwrap().len(), 8 + 64 + 4 * (8 * 8 * 3 + 20) + 8);
        assert!(made(true), "other pictures");
        let picture = root.join("rose/x.png");
        let later = fs::metadata(&picture).unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(&picture).unwrap().set_modified(later).unwrap();
        assert!(made(true) && !made(true), "a picture changed");
        for length in [0, 70, 100, fs::metadata(&file).unwrap().len() - 1] {
            fs::File::options().write(true).open(&file).unwrap().set_len(length).unwrap();
            assert!(made(true) && !made(true), "cut to {length} bytes");
        }
    }

    #[test]
    fn a_file_that_cannot_be_made_leaves_nothing() {
        let (flowers, kept) = (flowers(), tempfile::tempdir().unwrap());
        let file = kept.path().join("pixels");
        let stopped = Cached::in_file(folder(flowers.path()), false, &file, &mut |_, _| false);
        assert!(matches!(stopped, Err(DatasetError::Interrupted)));
        fs::write(flowers.path().join("rose/x.png"), "no picture").unwrap();
        let error = Cached::in_file(folder(flowers.path()), false, &file, &mut go_on).unwrap_err().to_string();
        assert!(error.contains("x.png cannot be read as an image"), "{error}");
        assert_eq!(fs::read_dir(kept.path()).unwrap().count(), 0);
        let memory = Box::new(crate::dataset::tests::counting(3, [1, 2, 2]));
        let error = Cached::in_file(memory, false, &file, &mut go_on).unwrap_err().to_string();
        assert_eq!(error, "cache: the pictures of counting are no files that are still there: keep them in memory");
    }

    #[test]
    fn a_damaged_entry_is_an_error_of_one_line() {
        let (flowers, kept) = (flowers(), tempfile::tempdir().unwrap());
        let file = kept.path().join("pixels");
        Cached::in_file(folder(flowers.path()), false, &file, &mut go_on).unwrap();
        let mut bytes = fs::read(&file).unwrap();
        let entries = bytes.len() - 8 - 4 * ENTRY;
        bytes[entries + 8..entries + 20].fill(0xff);
        fs::write(&file, bytes).unwrap();
        let data = Cached::in_file(folder(flowers.path()), false, &file, &mut go_on).unwrap();
        let error = data.examples().unwrap().picture(0).unwrap_err().to_string();
        assert_eq!(error, format!("cannot read {}: it is damaged: delete it", file.display()));
        assert!(data.examples().unwrap().picture(1).is_ok());
    }
}
