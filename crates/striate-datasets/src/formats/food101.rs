//! Food-101: pictures in a folder for each class, and a list of those of each part.

use super::{Format, Loaded, find_files, whole};
use crate::catalogue::Entry;
use crate::{DatasetError, FolderParts, ImageFolder};
use std::path::{Path, PathBuf};
use striate_torch::{Budget, Shown};

const TRAIN: &str = "meta/train.txt";
const TEST: &str = "meta/test.txt";

#[derive(Debug)]
pub(crate) struct Food101;

impl Format for Food101 {
    fn find(&self, entry: &Entry, folder: &Path) -> Result<PathBuf, String> {
        find_files(entry, folder, &[TRAIN, TEST])
    }

    fn read(&self, entry: &'static Entry, _: &Path, root: &Path, _: &Budget) -> Result<Loaded, DatasetError> {
        let (train, test) = (listed(entry, root, TRAIN)?, listed(entry, root, TEST)?);
        Ok(Loaded::Files(FolderParts { train, val: None, test: Some(test) }))
    }
}

/// The pictures of a list, whose lines are a class and the name of a file without its ending:
/// `apple_pie/1005649`.
fn listed(entry: &'static Entry, root: &Path, list: &str) -> Result<ImageFolder, DatasetError> {
    let path = root.join(list);
    let (classes, images) = (entry.classes(), root.join("images"));
    let text = striate_files::read_to_string(&path)?;
    let mut files = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let parts = line.split_once('/').filter(|(_, name)| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()));
        let class = parts.and_then(|(class, _)| classes.iter().position(|known| known == class));
        let Some(class) = class else {
            let reason = format!("line {number} is no class and number, such as apple_pie/1005649: {}", Shown(line));
            return Err(DatasetError::Unsound { path, format: "Food-101", reason });
        };
        files.push((images.join(format!("{line}.jpg")), class as i64));
    }
    if files.is_empty() {
        return Err(DatasetError::Unsound { path, format: "Food-101", reason: "it names no picture".to_owned() });
    }
    Ok(ImageFolder::of_files(entry.name, &images, files, classes, whole()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::folder::tests::write;
    use crate::formats::tests::{fault, load_from};
    use crate::{Dataset, PictureFile};
    use tch::Tensor;

    #[test]
    fn lists_say_which_pictures_a_part_has() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("food-101");
        for (file, colour) in [("apple_pie/10", 11), ("sushi/7", 22), ("waffles/3", 33)] {
            write(&root.join(format!("images/{file}.jpg")), [16, 16], colour);
        }
        std::fs::create_dir(root.join("meta")).unwrap();
        std::fs::write(root.join(TRAIN), "waffles/3\napple_pie/10\n").unwrap();
        std::fs::write(root.join(TEST), "sushi/7\n").unwrap();
        let Loaded::Files(parts) = load_from("food-101", folder.path()).unwrap() else { panic!("files") };
        let files = |part: &ImageFolder| {
            let file = |file: &PictureFile| (file.path().strip_prefix(&root).unwrap().display().to_string(), file.label());
            part.files().iter().map(file).collect::<Vec<_>>()
        };
        let expected = [("images/waffles/3.jpg".to_owned(), 100), ("images/apple_pie/10.jpg".to_owned(), 0)];
        assert_eq!(files(&parts.train), expected);
        let test = parts.test.unwrap();
        assert_eq!((files(&test)[0].1, test.classes()[95].as_str(), parts.val.is_none()), (95, "sushi", true));
        assert_eq!(test.batch(&Tensor::from_slice(&[0_i64])).unwrap().labels.int64_value(&[0]), 95);
    }

    #[test]
    fn lines_that_name_no_picture_of_a_class_are_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("meta")).unwrap();
        std::fs::write(folder.path().join(TEST), "sushi/7\n").unwrap();
        for line in ["sushi", "sushi/", "sushi/../7", "pelmeni/7", "../secret/7", "sushi/7/8"] {
            std::fs::write(folder.path().join(TRAIN), format!("sushi/1\n{line}\n")).unwrap();
            let error = fault("food-101", folder.path());
            let end = format!("line 2 is no class and number, such as apple_pie/1005649: {line}");
            assert!(error.starts_with(&folder.path().display().to_string()) && error.ends_with(&end), "{error}");
        }
        std::fs::write(folder.path().join(TRAIN), "").unwrap();
        assert!(fault("food-101", folder.path()).contains("has no meta/train.txt"));
    }
}
