//! What a source of pictures is: folders of classes, lists, or shards.

use super::gather::{CLASSES, fault};
use super::list::read_lists;
use super::parts::{Part, folders};
use super::scan::Reason;
use super::shard::read_shards;
use super::{FolderParts, ImageFolder, PartFolders, picture_files};
use crate::classes::{file_name, same_places};
use crate::source::Progress;
use crate::{Dataset, DatasetError, ImageSize, Interpolation, Normalise, Preprocess};
use std::fs;
use std::path::{Path, PathBuf};
use striate_fetch::{Download, FetchError, Lock, cache_dir};

/// The most shards that one pattern stands for.
const MOST: usize = 1_000_000;
/// The most digits of a number in braces: none that is 64 bits long has more.
const DIGITS: usize = 20;
/// The endings of lists.
const LISTS: [&str; 2] = ["csv", "tsv"];

/// A source, once it is known what it is.
enum Kind {
    /// A folder with a folder for each class, or one with parts.
    Classes,
    /// Lists, each with the part that its name tells.
    Lists(Vec<(Option<Part>, PathBuf)>),
    /// Shards, and whether a name tells a part of each.
    Shards(Vec<PathBuf>),
    /// Addresses of shards.
    Remote(Vec<String>),
}

/// Whether pictures can be in what has this name: a folder or a list or shard that is there, a pattern of shards
/// (`train-{000..009}.tar`, `shards/*.tar`) or an address of theirs.
pub fn is_source(source: &Path) -> bool {
    source.is_dir() || is_pattern(source) || (source.is_file() && has_ending(source, &["csv", "tsv", "tar"]))
}

/// Whether this is a pattern of shards or an address, and no path.
fn is_pattern(source: &Path) -> bool {
    is_address(source)
        || (has_ending(source, &["tar"]) && source.to_str().is_some_and(|text| text.contains(['{', '*', '?', '['])))
}

/// The files that a source consists of, in order: pictures, lists with the pictures that they name, or shards.
///
/// # Errors
///
/// A source that cannot be read.
pub fn source_files(source: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    match Kind::of(source)? {
        Kind::Classes => picture_files(source),
        Kind::Shards(shards) => Ok(shards),
        Kind::Remote(addresses) => Ok(addresses.into_iter().map(PathBuf::from).collect()),
        Kind::Lists(lists) => {
            let parts = read_lists(&lists, true)?;
            let pictures = parts.iter().flat_map(ImageFolder::files).map(|file| file.path().to_owned());
            Ok(lists.iter().map(|(_, list)| list.clone()).chain(pictures).collect())
        }
    }
}

impl FolderParts {
    /// The pictures of a source:
    ///
    /// - a folder with a folder for each class, or with parts (see [`PartFolders`]);
    /// - a list (`.csv`, `.tsv`) of paths and labels, or a folder with `train.csv` and perhaps `val.csv` and `test.csv`;
    /// - shards (`.tar`) as WebDataset has them: one, a folder of them, a pattern, or addresses, which are downloaded into the cache.
    ///
    /// Where it has no parts, all are to train with: [`split`](ImageFolder::split) makes parts of them.
    ///
    /// # Errors
    ///
    /// A source that cannot be read; see [`PartFolders::find`] and [`ImageFolder::open`] for folders;
    /// [`DatasetError::OtherClasses`] when their parts differ in their classes' names; a `preprocess` that makes no sense.
    pub fn open(source: impl AsRef<Path>, preprocess: &Preprocess) -> Result<Self, DatasetError> {
        Self::open_with(source, false, &mut |_, _, _| true)?.fit(preprocess)
    }

    /// [`open`](Self::open) for pictures whose size is not known yet: [`fit`](Self::fit) says it. If `skip_bad`, lines of lists and
    /// members of shards that cannot be taken are left out and counted.
    ///
    /// `progress` is told of a download as by [`fetch`](crate::fetch()); return `false` from it to stop.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open), and [`DatasetError::Interrupted`].
    pub fn open_with(
        source: impl AsRef<Path>,
        skip_bad: bool,
        progress: &mut dyn FnMut(&str, u64, Option<u64>) -> bool,
    ) -> Result<Self, DatasetError> {
        let source = source.as_ref();
        match Kind::of(source)? {
            Kind::Classes => of_classes(source),
            Kind::Lists(lists) => read_lists(&lists, skip_bad),
            Kind::Shards(shards) => of_shards(source, shards, skip_bad),
            Kind::Remote(addresses) => of_shards(source, fetched(&addresses, progress)?, skip_bad).map_err(to_fetch_again),
        }
    }
}

/// What stands for a size that is not known yet.
pub(crate) fn unsized_yet() -> Preprocess {
    Preprocess {
        image: ImageSize::ShorterSide { shorter_side: 1 },
        input: [3, 1, 1],
        normalise: Normalise::identity(),
        interpolation: Interpolation::default(),
    }
}

impl Kind {
    fn of(source: &Path) -> Result<Self, DatasetError> {
        if let Some(text) = source.to_str().filter(|_| is_pattern(source)) {
            let names = expanded(text)?;
            if is_address(source) {
                return Ok(Self::Remote(names));
            }
            return matching(text, &names).map(Self::Shards);
        }
        if has_ending(source, &["tar"]) && !source.is_dir() {
            return Ok(Self::Shards(vec![source.to_owned()]));
        }
        if has_ending(source, &LISTS) && !source.is_dir() {
            return Ok(Self::Lists(vec![(None, source.to_owned())]));
        }
        let (mut lists, mut shards, mut folders) = (Vec::new(), Vec::new(), Vec::new());
        for path in in_folder(source)? {
            let part = Part::find(&path.file_stem().unwrap_or_default().to_string_lossy());
            if path.is_dir() {
                folders.extend(part.map(|_| path));
            } else if has_ending(&path, &["tar"]) {
                shards.push(path);
            } else if has_ending(&path, &LISTS) && part.is_some() {
                lists.push((part, path));
            }
        }
        for folder in &folders {
            shards.extend(in_folder(folder)?.into_iter().filter(|path| has_ending(path, &["tar"]) && path.is_file()));
        }
        // Folders of classes may have lists beside them.
        let has_classes =
            || folders.iter().any(|folder| in_folder(folder).is_ok_and(|inner| inner.iter().any(|path| path.is_dir())));
        Ok(match () {
            () if !shards.is_empty() => Self::Shards(shards),
            () if lists.iter().any(|(part, _)| *part == Some(Part::Train)) && !has_classes() => Self::Lists(lists),
            () => Self::Classes,
        })
    }
}

/// What is in a folder, besides what is hidden, in the order of names.
fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let told = |error| DatasetError::io("read", folder, error);
    let paths = fs::read_dir(folder).map_err(told)?.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<std::io::Result<Vec<_>>>().map_err(told)?;
    paths.retain(|path| !file_name(path).starts_with('.'));
    paths.sort();
    Ok(paths)
}

fn of_classes(root: &Path) -> Result<FolderParts, DatasetError> {
    let Some(PartFolders { train, val, test }) = PartFolders::find(root)? else {
        let train = ImageFolder::open(root, unsized_yet())?;
        return Ok(FolderParts { train, val: None, test: None });
    };
    let mut of_parts = vec![train.clone()];
    of_parts.extend([&val, &test].into_iter().flatten().cloned());
    let mut train = ImageFolder::open(train, unsized_yet())?;
    for picture in pictures_beside(root, &of_parts)? {
        train.left_out.add(Reason::NoPart, &picture);
    }
    let part = |folder: Option<PathBuf>| {
        let open = |folder: PathBuf| {
            let part = ImageFolder::open(&folder, unsized_yet())?;
            same_places(&folder.display().to_string(), part.classes(), train.classes())?;
            part.with_classes(train.classes())
        };
        folder.map(open).transpose()
    };
    let (val, test) = (part(val)?, part(test)?);
    Ok(FolderParts { train, val, test })
}

/// The pictures in folders beside those of the parts.
fn pictures_beside(root: &Path, parts: &[PathBuf]) -> Result<Vec<PathBuf>, DatasetError> {
    let beside = folders(root)?.into_iter().filter(|folder| !parts.contains(folder));
    Ok(beside.map(|folder| picture_files(&folder)).collect::<Result<Vec<_>, _>>()?.concat())
}

fn of_shards(source: &Path, shards: Vec<PathBuf>, skip_bad: bool) -> Result<FolderParts, DatasetError> {
    let part = |shard: &PathBuf| {
        let folder = shard.parent().map(file_name).unwrap_or_default();
        Part::begins(&file_name(shard)).or_else(|| Part::find(&folder))
    };
    let parts: Vec<Option<Part>> = shards.iter().map(part).collect();
    let stray = shards.iter().zip(&parts).find(|(_, part)| part.is_none());
    if let (Some((stray, _)), true) = (stray, parts.iter().any(Option::is_some)) {
        let reason = format!("the name of {} tells no part, and those of others do: begin it with train-", file_name(stray));
        return Err(fault(source.display(), reason));
    }
    let root = match shards.first().and_then(|shard| shard.parent()) {
        _ if source.is_dir() => source,
        Some(folder) => folder,
        None => Path::new(""),
    };
    let name = file_name(if source.is_dir() || shards.len() == 1 { source } else { root });
    let shards: Vec<(Part, PathBuf)> =
        parts.into_iter().map(|part| part.unwrap_or(Part::Train)).zip(shards.iter().cloned()).collect();
    read_shards(root, name, &shards, skip_bad)
}

/// The same error, with what mends it if a whole shard of the cache is damaged.
fn to_fetch_again(error: DatasetError) -> DatasetError {
    match error {
        DatasetError::Inconsistent { dataset, reason } if Path::new(&dataset).is_file() => {
            DatasetError::DamagedCache { path: dataset.into(), reason }
        }
        other => other,
    }
}

fn is_address(source: &Path) -> bool {
    source.to_str().is_some_and(|text| text.starts_with("http://") || text.starts_with("https://"))
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|end| endings.iter().any(|known| end.eq_ignore_ascii_case(known)))
}

/// The files of a pattern whose braces are gone.
fn matching(pattern: &str, names: &[String]) -> Result<Vec<PathBuf>, DatasetError> {
    let mut files = Vec::new();
    for name in names {
        if Path::new(name).exists() || !name.contains(['*', '?', '[']) {
            files.push(name.into());
            continue;
        }
        let found = glob::glob(name).map_err(|error| fault(pattern, error.to_string()))?;
        files.extend(found.filter_map(Result::ok));
    }
    if files.is_empty() {
        return Err(fault(pattern, "no file has a name of this pattern".to_owned()));
    }
    Ok(files)
}

/// The names that a pattern with braces stands for: `{a,b}` and `{000..009}`.
fn expanded(pattern: &str) -> Result<Vec<String>, DatasetError> {
    let refuse = |reason: &str| fault(pattern, reason.to_owned());
    let mut names = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let (inner, after) = after.split_once('}').ok_or_else(|| refuse("a brace is not closed"))?;
        let choices: Vec<String> = match inner.split_once("..") {
            Some((first, last)) => {
                let [from, to] = [first, last].map(str::parse::<usize>);
                let (Ok(from), Ok(to)) = (from, to) else { return Err(refuse("braces hold two numbers, as in {000..009}")) };
                if from > to || to - from >= MOST {
                    return Err(refuse("the first number in braces is the smaller one, and the last at most a million more"));
                }
                if first.len().max(last.len()) > DIGITS {
                    return Err(refuse("a number in braces has too many digits"));
                }
                let width = if first.starts_with('0') || last.starts_with('0') { first.len().max(last.len()) } else { 0 };
                (from..=to).map(|number| format!("{number:0width$}")).collect()
            }
            None => inner.split(',').map(str::to_owned).collect(),
        };
        if names.len().saturating_mul(choices.len()) > MOST {
            return Err(refuse("it stands for more than a million names"));
        }
        names = names.iter().flat_map(|name| choices.iter().map(move |choice| format!("{name}{before}{choice}"))).collect();
        rest = after;
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

/// Shards in the cache, after downloading those that are not there.
fn fetched(addresses: &[String], progress: Progress) -> Result<Vec<PathBuf>, DatasetError> {
    let mut shards = Vec::new();
    for address in addresses {
        let Some((base, name)) = base_and_name(address) else {
            let reason = "it is no address of a shard: name one that ends with .tar".to_owned();
            return Err(fault(striate_fetch::public_address(address), reason));
        };
        let digest = striate_fetch::sha256_reader(base.as_bytes()).unwrap_or_default();
        let folder = cache_dir()?.join("shards").join(&digest[..digest.len().min(16)]);
        striate_files::create_folder(&folder)?;
        let waiting = || tracing::info!("waiting for another process that downloads {name}");
        let _lock = Lock::acquire(&folder.join(".lock"), waiting)?;
        let mut get = |address: &str, name: &str| {
            let file = folder.join(name);
            let fetched = Download::new([address], &file).fetch(&mut |done, of| progress(name, done, of));
            fetched.map(|()| file)
        };
        // The names of the classes come with the first shard, if the server has them.
        if shards.is_empty() && ![name, CLASSES].iter().any(|file| folder.join(file).exists()) {
            match get(&format!("{base}/{CLASSES}"), CLASSES) {
                Ok(_) | Err(FetchError::Status { .. }) => {}
                Err(error) => return Err(DatasetError::shard(name, &folder, error)),
            }
        }
        shards.push(get(address, name).map_err(|error| DatasetError::shard(name, &folder, error))?);
    }
    Ok(shards)
}

/// What stands before the name of a shard in its address, and that name. A signed address has a query, which may hold slashes.
fn base_and_name(address: &str) -> Option<(&str, &str)> {
    let (base, name) = address.split(['?', '#']).next()?.rsplit_once('/')?;
    (super::shard::within(name).is_some() && name.ends_with(".tar")).then_some((base, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_has_its_name_whatever_the_query_holds() {
        let expected = Some(("https://example.org/a", "x.tar"));
        for query in ["", "?token=1", "?credential=a/2026/s3&signature=x/y.tar", "#a/b"] {
            assert_eq!(base_and_name(&format!("https://example.org/a/x.tar{query}")), expected, "{query}");
        }
        for address in ["https://example.org/a", "https://", "https://example.org/?x=/y.tar", "https://example.org/a/.."] {
            assert_eq!(base_and_name(address), None, "{address}");
        }
    }
}
