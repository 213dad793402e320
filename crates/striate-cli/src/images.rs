//! Images to train and to evaluate with: a dataset of the catalogue, in memory, or folders of files that are decoded batch by batch.
use crate::error::CliError;
use crate::recipes::absolute;
use crate::train::{fit_together, model_for};
use std::path::{Path, PathBuf};
use striate_datasets::{
    Dataset, ImageFolder, ImageSize, InMemory, Interpolation, LoadOptions, Normalise, Preprocess, Split, catalogue, load,
};
use striate_models::Model;
use striate_train::Recipe;

/// What a recipe calls data that are folders of files; its `dir` has them.
pub(crate) const FOLDERS: &str = "image-folder";
/// Where the images lie in there that a network is judged by.
const TEST: [&str; 2] = ["test", "val"];

/// In memory or in files.
type Images = Split<Box<dyn Dataset>>;

/// The name and the folder that a recipe has for what `--data` gives, which may be the folder itself.
pub(crate) fn named(data: &str) -> Result<(String, Option<PathBuf>), CliError> {
    let folder = Path::new(data);
    if catalogue().iter().any(|entry| entry.name == data) || data == FOLDERS {
        return Ok((data.to_owned(), None));
    }
    if folder.is_dir() {
        return Ok((FOLDERS.to_owned(), Some(absolute(folder)?)));
    }
    match folder.components().count() {
        1 => Ok((data.to_owned(), None)),
        _ => Err(CliError::Usage(format!("{data}: there is no such folder"))),
    }
}

/// A recipe's model, and its images as the model wants them but for normalising.
pub(crate) fn for_recipe(recipe: &Recipe, options: &LoadOptions) -> Result<(Model, Preprocess, Images), CliError> {
    if recipe.data.name != FOLDERS {
        let Split { train, test } = load(&recipe.data.name, options)?;
        let (model, preprocess) = fit_together(recipe, &train)?;
        let (train, test) = (train.fit(&preprocess)?, test.fit(&preprocess)?);
        return Ok((model, preprocess, Split { train: Box::new(train), test: Box::new(test) }));
    }
    let root = root(options.root.as_deref())?;
    let test = part(root).ok_or_else(|| {
        CliError::Usage(format!(
            "{} has no folder `test` or `val` beside `train`: put the images to judge by there",
            root.display()
        ))
    })?;
    // The model follows from the classes, and the images' size from the model.
    let open = |folder: PathBuf| ImageFolder::open(folder, shaped([3, 1, 1]));
    let (train, test) = (open(root.join("train"))?, open(test)?);
    if train.classes() != test.classes() {
        let (ours, theirs) = (train.classes().join(", "), test.classes().join(", "));
        return Err(CliError::Usage(format!(
            "{}: the classes to train with ({ours}) are not those to judge by ({theirs})",
            root.display()
        )));
    }
    let model = model_for(recipe, 3, train.classes().len())?;
    let raw = shaped(model.input());
    let (train, test) = (train.fit(&raw)?, test.fit(&raw)?);
    let preprocess = Preprocess { normalise: train.statistics(usize::MAX, &mut |_, _| true)?.normalise, ..raw };
    Ok((model, preprocess, Split { train: Box::new(train), test: Box::new(test) }))
}

/// The images that a network is judged by, as its bundle wants them but for normalising.
pub(crate) fn to_judge_by(data: &str, dir: Option<&Path>, preprocess: &Preprocess) -> Result<Box<dyn Dataset>, CliError> {
    one_part(data, dir, preprocess, |split| split.test, part)
}

/// Those that a network is trained with, likewise.
pub(crate) fn to_train_with(data: &str, dir: Option<&Path>, preprocess: &Preprocess) -> Result<Box<dyn Dataset>, CliError> {
    let train = |root: &Path| Some(root.join("train")).filter(|folder| folder.is_dir());
    one_part(data, dir, preprocess, |split| split.train, train)
}

/// A part of a dataset; of a folder of files, the whole where it has no such part.
fn one_part(
    data: &str,
    dir: Option<&Path>,
    preprocess: &Preprocess,
    of_split: impl Fn(Split) -> InMemory,
    of_folder: impl Fn(&Path) -> Option<PathBuf>,
) -> Result<Box<dyn Dataset>, CliError> {
    let (name, given) = named(data)?;
    let dir = dir.or(given.as_deref());
    if name != FOLDERS {
        let split = load(&name, &LoadOptions { root: dir.map(Path::to_owned) })?;
        return Ok(Box::new(of_split(split).fit(preprocess)?));
    }
    let root = root(dir)?;
    Ok(Box::new(ImageFolder::open(of_folder(root).as_deref().unwrap_or(root), preprocess.clone())?))
}

fn root(dir: Option<&Path>) -> Result<&Path, CliError> {
    dir.ok_or_else(|| CliError::Usage(format!("{FOLDERS}: name the folder with --data-dir, or in place of {FOLDERS}")))
}

fn part(root: &Path) -> Option<PathBuf> {
    TEST.map(|name| root.join(name)).into_iter().find(|folder| folder.is_dir())
}

/// Resized until the shorter side fits, and cropped in the middle.
fn shaped(input: [i64; 3]) -> Preprocess {
    let shorter_side = input[1].max(input[2]);
    let image = ImageSize::ShorterSide { shorter_side };
    Preprocess { image, input, normalise: Normalise::identity(), interpolation: Interpolation::default() }
}
