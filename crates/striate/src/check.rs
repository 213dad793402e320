//! What is wrong with data, before an epoch is spent on it.
use crate::data::{FOLDER, Opened, Progress, open_parts};
use crate::{Classifier, Error};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use striate_datasets::{
    Dataset, DecodeOptions, Examples, Finding, Loader, LoaderOptions, Pixels, Problem, Seen, Subset, Survey, SurveyOptions,
    ignored_files, survey,
};
use striate_torch::Shown;
use striate_train::DataSection;
use tch::Kind;

/// Images of one evaluation step.
const BATCH: usize = 256;

/// How [`Checked::new`] looks at data.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckOptions<'a> {
    /// Whether to look for pictures that are not the same, but look alike.
    pub alike: bool,
    /// A network that is asked about the labels.
    pub classifier: Option<&'a Classifier>,
    /// How many of the pictures whose labels it finds least likely are told.
    pub doubts: usize,
}

impl Default for CheckOptions<'_> {
    /// No network, and 20 doubts.
    fn default() -> Self {
        Self { alike: true, classifier: None, doubts: 20 }
    }
}

/// Data that were looked at: what was found, and the pictures to show it by.
///
/// ```
/// use striate::check::{CheckOptions, Checked};
/// use striate::data::section;
///
/// let checked = Checked::new(&section("digits")?, &CheckOptions::default(), &mut |_, _, _| true)?;
/// for finding in &checked.survey.findings {
///     println!("{}: {}", if finding.error { "error" } else { "note" }, finding.message);
/// }
/// # Ok::<(), striate::Error>(())
/// ```
pub struct Checked {
    /// The dataset's name, or the folder's.
    pub name: String,
    /// What was found.
    pub survey: Survey,
    folder: PathBuf,
    parts: Vec<(String, Arc<dyn Examples>)>,
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checked").field("name", &self.name).field("survey", &self.survey).finish_non_exhaustive()
    }
}

impl Checked {
    /// Looks at every picture of what a recipe's section names: see [`survey`]. Of a folder, files that are no pictures are
    /// told too.
    ///
    /// # Errors
    ///
    /// Data that are not there, a folder that is laid out wrongly, classes that the classifier does not have, and an interruption.
    /// A picture that cannot be read is a finding, and so is a class that a part lacks.
    pub fn new(section: &DataSection, options: &CheckOptions<'_>, progress: Progress<'_>) -> Result<Self, Error> {
        if options.classifier.is_some_and(|classifier| classifier.info().loss.is_multi_label()) {
            return Err(Error::option("classifier", "takes a network whose classes exclude each other"));
        }
        // What is wrong with a list is found, and not an end.
        let section = &DataSection { skip_bad: true, ..section.clone() };
        let parts = open_parts(section, progress)?;
        let named: Vec<(&str, &dyn Dataset)> = parts.iter().map(|(name, data)| (*name, data.dataset())).collect();
        let mut looks = SurveyOptions::default();
        (looks.decode, looks.alike) = (DecodeOptions { max_pixels: section.max_pixels }, options.alike);
        let mut told = |done: usize, of: usize| progress("checking", done as u64, Some(of as u64));
        let mut survey = survey(&named, &looks, &mut told)?;
        let examples = |(name, data): &(&str, &dyn Dataset)| Ok(((*name).to_owned(), data.examples()?));
        let examples = named.iter().map(examples).collect::<Result<_, Error>>()?;
        if section.name == FOLDER {
            let ignored = if section.dir.is_dir() { ignored_files(&section.dir)? } else { Vec::new() };
            add_other_files(&mut survey, &parts, ignored);
        }
        if let Some(classifier) = options.classifier {
            let doubts = doubts(parts, &survey, classifier, progress)?;
            add_doubts(&mut survey, doubts, options.doubts);
        }
        let folder = section.dir.clone();
        let name = folder.file_name().map_or(section.name.clone(), |name| name.to_string_lossy().into_owned());
        Ok(Self { name, survey, folder, parts: examples })
    }

    /// Where a picture or file lies, for people: its path below the folder; its part and its number in a dataset in memory.
    pub fn place(&self, seen: &Seen) -> String {
        match (seen.place.strip_prefix(&self.folder), &seen.part) {
            (Ok(below), _) if !self.folder.as_os_str().is_empty() => below.display().to_string(),
            (_, Some(part)) if seen.place.components().count() == 1 => format!("{part} {}", seen.place.display()),
            _ => seen.place.display().to_string(),
        }
    }

    /// A picture that was found, decoded; none for a file that is no example, and for one that cannot be read.
    pub fn picture(&self, seen: &Seen) -> Option<Pixels<'_>> {
        let (_, examples) = self.parts.iter().find(|(name, _)| Some(name) == seen.part.as_ref())?;
        examples.picture(seen.example?).ok()
    }
}

/// Tells of files below a folder that are no pictures of a dataset.
fn add_other_files(survey: &mut Survey, parts: &[(&str, Opened)], ignored: Vec<PathBuf>) {
    let file = |part: Option<&str>, place: PathBuf| {
        vec![Seen { part: part.map(str::to_owned), example: None, place, class: None, note: String::new() }]
    };
    let left_out = parts.iter().filter_map(|(name, data)| match data {
        Opened::Folder(folder) => Some((*name, folder.left_out().harmful())).filter(|(_, files)| !files.is_empty()),
        Opened::Memory(_) => None,
    });
    let (mut told, mut files) = (Vec::new(), Vec::new());
    for (name, left_out) in left_out {
        told.push(format!("{name}: {left_out}"));
        files.extend(left_out.reasons().map(|(_, _, path)| file(Some(name), path.to_owned())));
    }
    if !told.is_empty() {
        survey.add(Finding::new(Problem::LeftOut, told.join("; "), files));
    }
    if !ignored.is_empty() {
        let message = match ignored.len() {
            1 => "1 hidden or system file is ignored".to_owned(),
            more => format!("{more} hidden or system files are ignored"),
        };
        let files = ignored.into_iter().map(|path| file(None, path)).collect();
        survey.add(Finding::new(Problem::Ignored, message, files));
    }
}

/// A picture that the network takes for another class.
struct Doubt {
    probability: f64,
    seen: Seen,
}

/// The pictures that the network takes for another class, that with the least probability of its own first.
fn doubts(
    parts: Vec<(&'static str, Opened)>,
    survey: &Survey,
    classifier: &Classifier,
    progress: Progress<'_>,
) -> Result<Vec<Doubt>, Error> {
    let (info, preprocess) = (classifier.info(), classifier.preprocess());
    let bad = survey.findings.iter().filter(|finding| finding.problem == Problem::Unreadable);
    let bad: HashSet<(&str, usize)> = bad
        .flat_map(|finding| finding.groups.iter().flatten())
        .filter_map(|seen| Some((seen.part.as_deref()?, seen.example?)))
        .collect();
    let all = (survey.len() - bad.len()) as u64;
    let (mut doubts, mut done) = (Vec::new(), 0);
    for (part, data) in parts {
        let data = data.with_classes(&info.classes)?.fit(preprocess)?;
        let sound: Vec<usize> = (0..data.len()).filter(|index| !bad.contains(&(part, *index))).collect();
        if sound.is_empty() {
            continue;
        }
        let indices: Vec<i64> = sound.iter().map(|index| index.cast_signed() as i64).collect();
        let (chosen, examples) = (Subset::new(&*data, &indices)?, data.examples()?);
        let loader = Loader::new(&chosen, preprocess.clone(), LoaderOptions::eval(BATCH))?;
        let mut sound = sound.into_iter();
        for batch in loader.epoch(0)? {
            if !progress("asking the network", done, Some(all)) {
                return Err(Error::Stopped);
            }
            let batch = batch?;
            let probabilities = classifier.logits(&batch.images)?.f_softmax(1, Kind::Double)?;
            let own = Vec::<f64>::try_from(probabilities.f_gather(1, &batch.labels.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?)?;
            let (most, likeliest) = probabilities.f_max_dim(1, false)?;
            let likeliest = Vec::<f64>::try_from(most)?.into_iter().zip(Vec::<i64>::try_from(likeliest)?);
            for ((index, own), (most, class)) in sound.by_ref().zip(own).zip(likeliest) {
                done += 1;
                if class == examples.label(index) {
                    continue;
                }
                let name = |class: i64| usize::try_from(class).ok().and_then(|class| info.classes.get(class)).cloned();
                let taken = name(class).unwrap_or_else(|| class.to_string());
                let note = format!("taken for {} ({:.1}%); its own class has {:.1}%", Shown(taken), 100.0 * most, 100.0 * own);
                let class = name(examples.label(index));
                let seen = Seen { part: Some(part.to_owned()), example: Some(index), place: examples.place(index), class, note };
                doubts.push(Doubt { probability: own, seen });
            }
        }
    }
    progress("asking the network", all, Some(all));
    doubts.sort_by(|a, b| a.probability.total_cmp(&b.probability));
    Ok(doubts)
}

fn add_doubts(survey: &mut Survey, doubts: Vec<Doubt>, most: usize) {
    let all = doubts.len();
    if all > 0 {
        let groups: Vec<Vec<Seen>> = doubts.into_iter().take(most).map(|doubt| vec![doubt.seen]).collect();
        let message = match all {
            1 => "1 picture that the network takes for another class".to_owned(),
            all if all > groups.len() => {
                format!(
                    "{all} pictures that the network takes for another class, of which these {} are the clearest",
                    groups.len()
                )
            }
            all => format!("{all} pictures that the network takes for another class"),
        };
        survey.add(Finding::new(Problem::Doubtful, message, groups));
    }
}
