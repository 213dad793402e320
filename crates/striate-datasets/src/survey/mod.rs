//! What is wrong with a dataset, before an epoch is spent on it.

mod alike;
mod look;
mod names;
mod report;

pub use names::ignored_files;
pub use report::{Count, Finding, PartCounts, Problem, Seen, Sizes, Survey};

use crate::classes::normal;
use crate::folder::side_by_side;
use crate::{Dataset, DatasetError, DecodeOptions, Examples};
use look::{Colours, Look, format_by_name, look};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use striate_torch::{Shown, few};

/// Pictures per thread that are looked at between two calls of `progress`.
const AT_ONCE: usize = 16;
/// From how many times as many pictures on a class is too large beside the smallest.
const IMBALANCE: usize = 10;
/// From how many times its shorter side on a picture's longer one is odd.
const PROPORTIONS: u32 = 4;

/// How a [`survey`] looks at pictures.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SurveyOptions {
    /// How pictures are decoded.
    pub decode: DecodeOptions,
    /// Whether to look for pictures that are not the same, but look alike.
    pub alike: bool,
}

impl Default for SurveyOptions {
    fn default() -> Self {
        Self { decode: DecodeOptions::default(), alike: true }
    }
}

/// Looks at every picture of a dataset's parts (such as `train` and `val`, by name): whether it can be decoded, whether it is there
/// twice or looks like another, its size, its colours and its file's name. Classes are told apart by their names.
///
/// Each picture is decoded once, by as many threads as libtorch's operators use, and less than 100 bytes of it are kept.
/// Pictures look alike if one is the other in another size, compression or brightness, or with small changes; a mirror image or a
/// part of it does not.
///
/// `progress` gets the number of pictures done and the total. Return `false` from it to stop.
///
/// ```
/// use striate_datasets::{SurveyOptions, digits, survey};
/// let split = digits()?;
/// let found = survey(&[("train", &split.train), ("test", &split.test)], &SurveyOptions::default(), &mut |_, _| true)?;
/// assert_eq!(found.len(), split.train.len() + split.test.len());
/// assert!(!found.has_errors());
/// # use striate_datasets::Dataset;
/// # Ok::<(), striate_datasets::DatasetError>(())
/// ```
///
/// # Errors
///
/// [`DatasetError::Interrupted`], and libtorch's. A picture that cannot be read is a finding.
pub fn survey(
    parts: &[(&str, &dyn Dataset)],
    options: &SurveyOptions,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Survey, DatasetError> {
    let pictures = Pictures::of(parts)?;
    let looks = pictures.looks(options, progress)?;
    let mut found = Survey {
        classes: pictures.classes.clone(),
        parts: pictures.counts(),
        sizes: sizes(&looks),
        colours: counts(looks.iter().flatten().map(|look| look.colours.name())),
        formats: counts(looks.iter().flatten().filter_map(|look| look.format.map(look::name))),
        findings: Vec::new(),
    };
    let bad = looks.iter().zip(0..).filter_map(|(look, id)| Some(vec![pictures.seen(id, look.as_ref().err()?.clone())]));
    found.add_all(Problem::Unreadable, bad.collect(), |count, _| format!("{} cannot be read", number(count, "picture")));
    let looks: Vec<Option<Look>> = looks.into_iter().map(Result::ok).collect();
    let same = groups_of_same(&looks);
    if options.alike {
        let prints = looks.iter().zip(0..).filter(|(_, id)| !same.is_copy(*id));
        let prints = prints.filter_map(|(look, id)| Some((look.as_ref()?.print?, id))).collect();
        let alike = alike::groups(prints, &mut || progress(looks.len(), looks.len())).ok_or(DatasetError::Interrupted)?;
        pictures.sort_groups(alike, [Problem::AlikeInClasses, Problem::AlikeInParts, Problem::Alike], &mut found);
    }
    pictures.sort_groups(same.groups, [Problem::SameInClasses, Problem::SameInParts, Problem::Same], &mut found);
    pictures.look_at_classes(&found.parts).into_iter().for_each(|finding| found.add(finding));
    pictures.look_at_pictures(&looks, &mut found);
    pictures.look_at_names(&looks, &mut found);
    Ok(found)
}

/// The part of a [`survey`] that takes no look at pictures: classes that a part lacks, that are far larger than others, or whose names
/// are hard to tell apart.
///
/// # Errors
///
/// libtorch's.
pub fn survey_classes(parts: &[(&str, &dyn Dataset)]) -> Result<Vec<Finding>, DatasetError> {
    let pictures = Pictures::of(parts)?;
    Ok(pictures.look_at_classes(&pictures.counts()))
}

/// The pictures of all parts, one after another: an id is a picture's place among them.
struct Pictures {
    parts: Vec<Part>,
    classes: Vec<String>,
    /// The sets of classes that pictures have.
    sets: Vec<Vec<u32>>,
    /// The set of each.
    labels: Vec<u32>,
}

struct Part {
    name: String,
    examples: Arc<dyn Examples>,
    /// The id of its first picture.
    first: usize,
}

impl Pictures {
    fn of(parts: &[(&str, &dyn Dataset)]) -> Result<Self, DatasetError> {
        let mut all = Self { parts: Vec::new(), classes: Vec::new(), sets: Vec::new(), labels: Vec::new() };
        let (mut places, mut sets): (HashMap<String, u32>, HashMap<Vec<u32>, u32>) = Default::default();
        for (name, data) in parts {
            let mut place = |class: &String| {
                let next = u32::try_from(all.classes.len()).unwrap_or(u32::MAX);
                *places.entry(normal(class)).or_insert_with(|| {
                    all.classes.push(class.clone());
                    next
                })
            };
            let classes: Vec<u32> = data.classes().iter().map(&mut place).collect();
            let examples = data.examples()?;
            let first = all.labels.len();
            for index in 0..data.len() {
                let class = |label: &i64| classes.get(label.unsigned_abs() as usize).copied();
                let mut set: Vec<u32> = examples.labels(index).iter().filter_map(class).collect();
                set.sort_unstable();
                let next = u32::try_from(all.sets.len()).unwrap_or(u32::MAX);
                let known = *sets.entry(set).or_insert_with_key(|set| {
                    all.sets.push(set.clone());
                    next
                });
                all.labels.push(known);
            }
            all.parts.push(Part { name: (*name).to_owned(), examples, first });
        }
        Ok(all)
    }

    /// The part of a picture, and its place there.
    fn part(&self, id: usize) -> (usize, usize) {
        let part = self.parts.partition_point(|part| part.first <= id) - 1;
        (part, id - self.parts[part].first)
    }

    fn place(&self, id: usize) -> PathBuf {
        let (part, index) = self.part(id);
        self.parts[part].examples.place(index)
    }

    /// The names of a picture's classes.
    fn class(&self, id: usize) -> Option<String> {
        let names = self.sets[self.labels[id] as usize].iter().filter_map(|class| self.classes.get(*class as usize));
        let names: Vec<&str> = names.map(String::as_str).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    fn seen(&self, id: usize, note: impl Into<String>) -> Seen {
        let (part, index) = self.part(id);
        let Part { name, examples, .. } = &self.parts[part];
        let (part, class) = (Some(name.clone()), self.class(id));
        Seen { part, example: Some(index), place: examples.place(index), class, note: note.into() }
    }

    /// What is seen of each picture, or why it cannot be read.
    fn looks(
        &self,
        options: &SurveyOptions,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Vec<Result<Look, String>>, DatasetError> {
        let all: Vec<usize> = (0..self.labels.len()).collect();
        let mut looks = Vec::with_capacity(all.len());
        let one = |id: &usize| {
            let (part, index) = self.part(*id);
            look(&*self.parts[part].examples, index, &options.decode).map_err(|error| match error {
                DatasetError::Image { reason, .. } | DatasetError::Picture { reason } => reason,
                other => other.to_string(),
            })
        };
        for some in all.chunks(AT_ONCE * striate_torch::num_threads()) {
            if !progress(looks.len(), all.len()) {
                return Err(DatasetError::Interrupted);
            }
            looks.extend(side_by_side(some, one));
        }
        progress(all.len(), all.len());
        Ok(looks)
    }

    fn counts(&self) -> Vec<PartCounts> {
        let ends = self.parts.iter().skip(1).map(|part| part.first).chain([self.labels.len()]);
        let counts = |(part, end): (&Part, usize)| {
            let mut pictures = vec![0; self.classes.len()];
            for label in &self.labels[part.first..end] {
                for class in &self.sets[*label as usize] {
                    pictures[*class as usize] += 1;
                }
            }
            PartCounts { part: part.name.clone(), pictures }
        };
        self.parts.iter().zip(ends).map(counts).collect()
    }

    /// Adds groups of pictures that are the same or look alike: those of several classes, of several parts, and others.
    fn sort_groups(&self, groups: Vec<Vec<usize>>, problems: [Problem; 3], found: &mut Survey) {
        let mut sorted = [const { Vec::new() }; 3];
        for group in groups {
            let differ = |of: &dyn Fn(usize) -> usize| group.iter().any(|id| of(*id) != of(group[0]));
            let place = match () {
                () if differ(&|id| self.labels[id] as usize) => 0,
                () if differ(&|id| self.part(id).0) => 1,
                () => 2,
            };
            sorted[place].push(group.into_iter().map(|id| self.seen(id, "")).collect());
        }
        for (problem, groups) in problems.into_iter().zip(sorted) {
            found.add_all(problem, groups, |count, all| match problem {
                Problem::SameInClasses => format!("{} under several labels ({all} files)", number(count, "picture")),
                Problem::SameInParts => format!("{} in several parts ({all} files)", number(count, "picture")),
                Problem::AlikeInClasses => format!("{} of pictures look alike under several labels", number(count, "group")),
                Problem::AlikeInParts => format!("{} of pictures look alike in several parts", number(count, "group")),
                Problem::Alike => format!("{} of pictures look alike in one class", number(count, "group")),
                _ => format!("{} several times in one class ({all} files)", number(count, "picture")),
            });
        }
    }

    fn look_at_classes(&self, counts: &[PartCounts]) -> Vec<Finding> {
        let mut found = Vec::new();
        let lacks = |part: &PartCounts| {
            let none = part.pictures.iter().zip(&self.classes).filter(|(count, _)| **count == 0);
            let none: Vec<&str> = none.map(|(_, class)| class.as_str()).collect();
            (!none.is_empty()).then(|| format!("{} has no picture of {}", part.part, few(none.iter())))
        };
        let lacking: Vec<String> = counts.iter().filter_map(lacks).collect();
        if !lacking.is_empty() {
            found.push(Finding::new(Problem::MissingClass, lacking.join("; "), Vec::new()));
        }
        if let [only] = &self.classes[..] {
            found.push(Finding::new(Problem::OneClass, format!("there is one class only, {}", Shown(only)), Vec::new()));
        }
        let of_classes = counts.first().map(|part| part.pictures.iter().zip(&self.classes).filter(|(count, _)| **count > 0));
        let (least, most) = (of_classes.clone().and_then(|all| all.min()), of_classes.and_then(|all| all.max()));
        if let (Some((few, small)), Some((many, large))) = (least, most)
            && *many >= IMBALANCE * few
        {
            let (small, large, times) = (Shown(small), Shown(large), many / few);
            let message = format!("{large} has {times} times as many pictures as {small} ({many} and {few})");
            found.push(Finding::new(Problem::Imbalance, message, Vec::new()));
        }
        let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for class in &self.classes {
            alike.entry(normal(class).to_lowercase()).or_default().push(class);
        }
        let alike: Vec<String> = alike.into_values().filter(|names| names.len() > 1).map(|names| few(names.iter())).collect();
        if !alike.is_empty() {
            let message = format!("names of classes differ in capital letters only: {}", alike.join("; "));
            found.push(Finding::new(Problem::AlikeClasses, message, Vec::new()));
        }
        found
    }

    fn look_at_pictures(&self, looks: &[Option<Look>], found: &mut Survey) {
        let sound = || looks.iter().zip(0..).filter_map(|(look, id)| Some((look.as_ref()?, id)));
        let odd = sound().filter(|(Look { size: [width, height], .. }, _)| width.max(height) / PROPORTIONS >= *width.min(height));
        let odd = odd.map(|(Look { size: [width, height], .. }, id)| vec![self.seen(id, format!("{width}x{height}"))]);
        found.add_all(Problem::Proportions, odd.collect(), |count, _| {
            format!("{} with one side {PROPORTIONS} times as long as the other, or longer", number(count, "picture"))
        });
        let mut all: BTreeMap<Colours, usize> = BTreeMap::new();
        sound().for_each(|(look, _)| *all.entry(look.colours).or_default() += 1);
        if let Some((most, _)) = all.into_iter().max_by_key(|(_, count)| *count) {
            let odd = sound().filter(|(look, _)| look.colours != most);
            let odd = odd.map(|(look, id)| vec![self.seen(id, format!("{}: {}", look.colours.name(), look.colours.fate()))]);
            found.add_all(Problem::Colours, odd.collect(), |count, _| {
                format!("{} with other colours than most, which are {}", number(count, "picture"), most.name())
            });
        }
    }

    fn look_at_names(&self, looks: &[Option<Look>], found: &mut Survey) {
        // Of a million names, their hashes are enough to find the few that may clash.
        let mut folded: Vec<(u64, usize)> = Vec::new();
        let hasher = RandomState::new();
        let (mut lies, mut copies) = (Vec::new(), Vec::new());
        for (look, id) in looks.iter().zip(0..) {
            let place = self.place(id);
            let Some(Look { format: Some(format), .. }) = look else { continue };
            if format_by_name(&place).is_some_and(|named| named != *format) {
                lies.push(vec![self.seen(id, look::name(*format))]);
            }
            if names::is_copy(&place) {
                copies.push(vec![self.seen(id, "")]);
            }
            if let Some(name) = names::folded(&place) {
                folded.push((hasher.hash_one(name), id));
            }
        }
        found.add_all(Problem::Extension, lies, |count, _| {
            format!("{} whose content is of another format than the name says", number(count, "file"))
        });
        found.add_all(Problem::Copy, copies, |count, _| format!("{} named like a copy", number(count, "file")));
        folded.sort_unstable();
        let mut clashes: BTreeMap<PathBuf, Vec<Seen>> = BTreeMap::new();
        for (_, id) in folded.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1).flatten() {
            let seen = self.seen(*id, "");
            clashes.entry(names::folded(&seen.place).unwrap_or_default()).or_default().push(seen);
        }
        let clashes: Vec<Vec<Seen>> = clashes.into_values().filter(|names| names.len() > 1).collect();
        found.add_all(Problem::Clash, clashes, |count, _| {
            format!("{} that some systems take for one: only capital letters or accents differ", number(count, "group of names"))
        });
    }
}

impl Survey {
    /// Adds groups with a problem, if there are any; `message` is given their number, and that of all in them.
    fn add_all(&mut self, problem: Problem, groups: Vec<Vec<Seen>>, message: impl FnOnce(usize, usize) -> String) {
        if !groups.is_empty() {
            let message = message(groups.len(), groups.iter().map(Vec::len).sum());
            self.add(Finding::new(problem, message, groups));
        }
    }
}

/// Pictures of the same content.
struct Same {
    groups: Vec<Vec<usize>>,
    /// Those that are not the first of their group, in order.
    copies: Vec<usize>,
}

impl Same {
    fn is_copy(&self, id: usize) -> bool {
        self.copies.binary_search(&id).is_ok()
    }
}

fn groups_of_same(looks: &[Option<Look>]) -> Same {
    let content = |id: &usize| looks[*id].as_ref().map(|look| (look.content, look.size));
    let mut order: Vec<usize> = (0..looks.len()).filter(|id| looks[*id].is_some()).collect();
    order.sort_unstable_by_key(|id| (content(id), *id));
    let groups = order.chunk_by(|a, b| content(a) == content(b)).filter(|group| group.len() > 1);
    let mut groups: Vec<Vec<usize>> = groups.map(<[usize]>::to_vec).collect();
    groups.sort_unstable();
    let mut copies: Vec<usize> = groups.iter().flat_map(|group| &group[1..]).copied().collect();
    copies.sort_unstable();
    Same { groups, copies }
}

fn sizes<E>(looks: &[Result<Look, E>]) -> Option<Sizes> {
    let mut sizes: Vec<[u32; 2]> = looks.iter().flatten().map(|look| look.size).collect();
    sizes.sort_unstable_by_key(|[width, height]| (u64::from(*width) * u64::from(*height), *width));
    Some(Sizes { smallest: *sizes.first()?, median: sizes[sizes.len() / 2], largest: *sizes.last()? })
}

fn counts(of: impl Iterator<Item = &'static str>) -> Vec<Count> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    of.for_each(|what| *counts.entry(what).or_default() += 1);
    let mut counts: Vec<Count> = counts.into_iter().map(|(what, pictures)| Count { what: what.to_owned(), pictures }).collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.pictures));
    counts
}

/// `1 picture`, `2 pictures`.
fn number(count: usize, what: impl Display) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::alike::tests::scene;
    use super::*;
    use crate::{ImageFolder, digits, folder};
    use image::imageops::{self, FilterType};
    use image::{DynamicImage, ImageFormat, RgbImage};
    use std::fs;
    use std::path::Path;

    fn save(path: &Path, image: impl Into<DynamicImage>, format: ImageFormat) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image.into().save_with_format(path, format).unwrap();
    }

    fn open(root: &Path) -> ImageFolder {
        ImageFolder::open(root, folder::tests::preprocess(8)).unwrap()
    }

    fn found(root: &Path, parts: &[&str]) -> Survey {
        let parts: Vec<(&str, ImageFolder)> = parts.iter().map(|part| (*part, open(&root.join(part)))).collect();
        let parts: Vec<(&str, &dyn Dataset)> = parts.iter().map(|(name, data)| (*name, data as &dyn Dataset)).collect();
        survey(&parts, &SurveyOptions::default(), &mut |_, _| true).unwrap()
    }

    /// The problems with their groups, below `root`.
    fn problems(found: &Survey, root: &Path) -> Vec<(Problem, Vec<Vec<String>>)> {
        let name = |seen: &Seen| seen.place.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let groups = |finding: &Finding| finding.groups.iter().map(|group| group.iter().map(name).collect()).collect();
        found.findings.iter().map(|finding| (finding.problem, groups(finding))).collect()
    }

    fn names(groups: &[&[&str]]) -> Vec<Vec<String>> {
        groups.iter().map(|group| group.iter().map(|name| (*name).to_owned()).collect()).collect()
    }

    #[test]
    fn copies_and_pictures_that_look_alike_are_sorted_by_what_they_spoil() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for (seed, name) in
            (0..).zip(["train/a/0.png", "train/a/1.png", "train/b/2.png", "train/b/3.png", "val/a/4.png", "val/b/5.png"])
        {
            save(&at(name), scene(seed, [64, 48]), ImageFormat::Png);
        }
        assert_eq!(problems(&found(root.path(), &["train", "val"]), root.path()), []);
        for (from, to) in
            [("train/a/0.png", "train/b/0.png"), ("train/a/1.png", "val/a/one.png"), ("train/b/2.png", "train/b/deep/2.png")]
        {
            fs::create_dir_all(at(to).parent().unwrap()).unwrap();
            fs::copy(at(from), at(to)).unwrap();
        }
        for (seed, name) in [(3, "train/a/like-3.jpg"), (4, "train/a/like-4.jpg"), (5, "val/b/like-5.jpg")] {
            save(&at(name), imageops::resize(&scene(seed, [64, 48]), 50, 40, FilterType::Triangle), ImageFormat::Jpeg);
        }
        let found = found(root.path(), &["train", "val"]);
        let expected = [
            (Problem::SameInClasses, names(&[&["train/a/0.png", "train/b/0.png"]])),
            (Problem::SameInParts, names(&[&["train/a/1.png", "val/a/one.png"]])),
            (Problem::AlikeInClasses, names(&[&["train/a/like-3.jpg", "train/b/3.png"]])),
            (Problem::AlikeInParts, names(&[&["train/a/like-4.jpg", "val/a/4.png"]])),
            (Problem::Same, names(&[&["train/b/2.png", "train/b/deep/2.png"]])),
            (Problem::Alike, names(&[&["val/b/5.png", "val/b/like-5.jpg"]])),
        ];
        assert_eq!(problems(&found, root.path()), expected);
        assert!(found.has_errors() && found.findings[0].message == "1 picture under several labels (2 files)");
        let counts: Vec<&[usize]> = found.parts.iter().map(|part| &part.pictures[..]).collect();
        assert_eq!((counts, found.len()), (vec![&[4, 4][..], &[2, 2]], 12));
        assert_eq!(
            found.formats.iter().map(|count| (count.what.as_str(), count.pictures)).collect::<Vec<_>>(),
            [("PNG", 9), ("JPEG", 3)]
        );
        assert_eq!(found.sizes, Some(Sizes { smallest: [50, 40], median: [64, 48], largest: [64, 48] }));
        let data = open(&root.path().join("train"));
        let options = SurveyOptions { alike: false, ..SurveyOptions::default() };
        let exact = survey(&[("train", &data)], &options, &mut |_, _| true).unwrap();
        assert!(exact.findings.iter().all(|finding| !matches!(finding.problem, Problem::Alike | Problem::AlikeInClasses)));
        let stopped = survey(&[("train", &data)], &options, &mut |_, _| false);
        assert!(matches!(stopped, Err(DatasetError::Interrupted)));
    }

    #[test]
    fn files_that_are_not_what_they_seem_are_told() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join("all").join(name);
        for (seed, name) in (10..).zip(["a/1.png", "a/2.png", "a/3.png", "b/4.png", "b/5.png"]) {
            save(&at(name), scene(seed, [32, 32]), ImageFormat::Png);
        }
        let cut = fs::read(at("a/1.png")).unwrap();
        fs::write(at("a/cut.png"), &cut[..cut.len() / 2]).unwrap();
        save(&at("a/lies.jpg"), scene(20, [32, 32]), ImageFormat::Png);
        save(&at("a/photo (1).png"), scene(21, [32, 32]), ImageFormat::Png);
        save(&at("b/4.PNG"), scene(22, [32, 32]), ImageFormat::Png);
        save(&at("b/wide.png"), scene(23, [128, 32]), ImageFormat::Png);
        save(&at("b/grey.png"), imageops::grayscale(&scene(24, [32, 32])), ImageFormat::Png);
        save(&at("b/deep.png"), DynamicImage::from(scene(25, [32, 32])).into_rgb16(), ImageFormat::Png);
        save(&at("b/clear.png"), DynamicImage::from(scene(26, [32, 32])).into_rgba8(), ImageFormat::Png);
        let found = found(root.path(), &["all"]);
        let expected = [
            (Problem::Unreadable, names(&[&["all/a/cut.png"]])),
            (Problem::Proportions, names(&[&["all/b/wide.png"]])),
            (Problem::Colours, names(&[&["all/b/clear.png"], &["all/b/deep.png"], &["all/b/grey.png"]])),
            (Problem::Extension, names(&[&["all/a/lies.jpg"]])),
            (Problem::Copy, names(&[&["all/a/photo (1).png"]])),
            (Problem::Clash, names(&[&["all/b/4.PNG", "all/b/4.png"]])),
        ];
        assert_eq!(problems(&found, root.path()), expected);
        let notes = |problem| {
            let finding = found.findings.iter().find(|finding| finding.problem == problem).unwrap();
            finding.groups.iter().map(|group| group[0].note.as_str()).collect::<Vec<_>>()
        };
        assert!(notes(Problem::Unreadable)[0].contains("cut off"));
        assert_eq!(notes(Problem::Proportions), ["128x32"]);
        let fates = [
            "RGB with transparency: the transparency is dropped",
            "more than 8 bits: cut to 8 bits",
            "grey: repeated in each channel of a network for colours",
        ];
        assert_eq!((notes(Problem::Colours), notes(Problem::Extension)), (fates.to_vec(), vec!["PNG"]));
    }

    #[test]
    fn classes_are_counted_by_name() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for seed in 0..12 {
            save(&at(&format!("train/Cat/{seed}.png")), scene(seed, [16, 16]), ImageFormat::Png);
        }
        for (seed, name) in (12..).zip(["train/cat/1.png", "val/Cat/1.png", "val/dog/1.png"]) {
            save(&at(name), scene(seed, [16, 16]), ImageFormat::Png);
        }
        let found = found(root.path(), &["train", "val"]);
        let told: Vec<(Problem, &str)> =
            found.findings.iter().map(|finding| (finding.problem, finding.message.as_str())).collect();
        let expected = [
            (Problem::MissingClass, "train has no picture of dog; val has no picture of cat"),
            (Problem::Imbalance, "Cat has 12 times as many pictures as cat (12 and 1)"),
            (Problem::AlikeClasses, "names of classes differ in capital letters only: Cat, cat"),
        ];
        assert_eq!(told, expected);
        let parts = ["train", "val"].map(|part| open(&root.path().join(part)));
        let quick = survey_classes(&[("train", &parts[0]), ("val", &parts[1])]).unwrap();
        assert_eq!(quick, found.findings);
    }

    #[test]
    fn pictures_in_memory_are_looked_at_by_their_numbers() {
        let train = digits().unwrap().train;
        let twice = train.select(&[0, 1, 2, 0]).unwrap();
        let found = survey(&[("train", &twice)], &SurveyOptions::default(), &mut |_, _| true).unwrap();
        let same = found.findings.iter().find(|finding| finding.problem == Problem::Same).unwrap();
        assert_eq!(same.groups[0].iter().map(|seen| seen.place.to_str().unwrap()).collect::<Vec<_>>(), ["0", "3"]);
        assert_eq!((found.colours[0].what.as_str(), found.formats.len()), ("grey", 0));
    }

    /// As Adobe's programs write CMYK; made by Pillow: `Image.new("CMYK", (8, 8), (10, 200, 30, 5)).save("x.jpg")`.
    #[test]
    fn a_jpeg_for_printing_is_told() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join("all").join(name);
        for (seed, name) in (0..).zip(["a/1.jpg", "b/2.jpg"]) {
            save(&at(name), RgbImage::clone(&scene(seed, [32, 32])), ImageFormat::Jpeg);
        }
        fs::write(at("a/print.jpg"), include_bytes!("../../tests/pictures/cmyk.jpg")).unwrap();
        let found = found(root.path(), &["all"]);
        assert_eq!(problems(&found, root.path()), [(Problem::Colours, names(&[&["all/a/print.jpg"]]))]);
        assert!(found.findings[0].groups[0][0].note.starts_with("CMYK"));
    }
}
