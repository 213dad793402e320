//! Folders `train` and `val` with a folder for each class, named after its synset.

use super::{Format, Loaded, whole};
use crate::catalogue::Entry;
use crate::{DatasetError, FolderParts, ImageFolder};
use std::path::{Path, PathBuf};
use striate_torch::Budget;

#[derive(Debug)]
pub(crate) struct ClassFolders;

impl Format for ClassFolders {
    fn find(&self, entry: &Entry, folder: &Path) -> Result<PathBuf, String> {
        let has_parts = |root: &PathBuf| ["train", "val"].iter().all(|part| root.join(part).is_dir());
        entry.inside(folder).find(has_parts).ok_or_else(|| "folders train and val".to_owned())
    }

    fn read(&self, entry: &'static Entry, _: &Path, root: &Path, _: &Budget) -> Result<Loaded, DatasetError> {
        let folders = entry.class_folders();
        let named = |part: ImageFolder| Ok(part.with_classes(&folders)?.named(entry.name, entry.classes()));
        Ok(Loaded::Files(FolderParts::open(root, &whole())?.map(named)?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::folder::tests::write;
    use crate::formats::Loaded;
    use crate::formats::tests::{fault, load_from};
    use crate::{Dataset, PictureFile};

    #[test]
    fn synsets_are_shown_as_names() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("imagenette2-160");
        for (file, colour) in [
            ("train/n01440764/a.JPEG", 1),
            ("train/n03888257/b.JPEG", 2),
            ("train/n03888257/c.JPEG", 3),
            ("val/n01440764/d.JPEG", 4),
            ("val/n03888257/e.JPEG", 5),
        ] {
            write(&root.join(file), [6, 5], colour);
        }
        let Loaded::Files(parts) = load_from("imagenette-160", folder.path()).unwrap() else { panic!("files") };
        let labels = |part: &crate::ImageFolder| part.files().iter().map(PictureFile::label).collect::<Vec<_>>();
        assert_eq!((labels(&parts.train), labels(parts.val.as_ref().unwrap())), (vec![0, 9, 9], vec![0, 9]));
        assert_eq!((parts.train.name(), parts.train.classes()[9].as_str()), ("imagenette-160", "parachute"));
        assert_eq!(parts.train.classes().len(), 10, "also those of which there is no picture");
        write(&root.join("train/n99/f.JPEG"), [6, 5], 6);
        write(&root.join("val/n99/f.JPEG"), [6, 5], 6);
        assert!(fault("imagenette-160", folder.path()).ends_with("it has classes that are not expected: n99"));
        let error = fault("imagewoof-160", folder.path());
        assert!(
            error.ends_with("has no folders train and val: name the folder that holds the files of imagewoof-160"),
            "{error}"
        );
    }
}
