//! Lists of pictures: a CSV or TSV with paths and labels.

use super::gather::{Gathered, LONGEST, Label, fault};
use super::parts::Part;
use super::scan::by_name;
use super::{FolderParts, PictureFile, Reason};
use crate::DatasetError;
use crate::classes::file_name;
use csv::{ReaderBuilder, StringRecord, Trim};
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use striate_torch::{contained, note_file};

/// What columns are called, in small letters and without blanks. Of several, the first in this order is taken.
const PATHS: [&str; 12] = [
    "path",
    "file",
    "filename",
    "filepath",
    "image",
    "imagepath",
    "imagename",
    "picture",
    "img",
    "imgpath",
    "filepaths",
    "files",
];
const LABELS: [&str; 9] = ["label", "labels", "class", "classes", "classname", "category", "categories", "target", "tags"];
const SPLITS: [&str; 6] = ["split", "set", "subset", "part", "dataset", "partition"];
/// What stands between the labels of a picture.
const SEPARATORS: [char; 2] = ['|', ';'];
/// In how many bytes the first line of a list ends, for what stands between columns.
const FIRST: usize = 64 * 1024;

/// Where a list has what.
struct Columns {
    path: usize,
    split: Option<usize>,
    labels: LabelColumns,
    /// Whether the first line names them.
    has_header: bool,
}

enum LabelColumns {
    /// The names of a picture's classes.
    Named(usize),
    /// A column of 0 and 1 for each class: the column, and the class.
    Each(Vec<(usize, i64)>),
}

/// The pictures of several lists together: each has a part, or a column that tells it.
pub(crate) fn read_lists(lists: &[(Option<Part>, PathBuf)], skip_bad: bool) -> Result<FolderParts, DatasetError> {
    let Some((part, first)) = lists.first() else {
        return Err(fault("lists", "there are none: name one".to_owned()));
    };
    let root = first.parent().unwrap_or(Path::new(""));
    let name = file_name(if part.is_none() || root.as_os_str().is_empty() { first } else { root });
    let mut gathered = Gathered::new(root, name, &[root], skip_bad)?;
    let mut seen = HashMap::new();
    for (number, (part, list)) in lists.iter().enumerate() {
        let told = |panic| fault(list.display(), format!("it cannot be read: {panic}"));
        contained(|| read(lists, number, *part, &mut gathered, &mut seen), told)?;
    }
    gathered.finish()
}

/// Reads the list of this number. `seen` has where each picture is named: the list's number, and the line.
fn read(
    lists: &[(Option<Part>, PathBuf)],
    number: usize,
    part: Option<Part>,
    into: &mut Gathered,
    seen: &mut HashMap<PathBuf, (usize, u64)>,
) -> Result<(), DatasetError> {
    let list = lists[number].1.as_path();
    note_file(list);
    let mut file = BufReader::with_capacity(FIRST, striate_files::open(list)?);
    let delimiter = delimiter(list, file.fill_buf().map_err(|error| DatasetError::io("read", list, error))?);
    let mut reader =
        ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).trim(Trim::All).from_reader(file);
    let mut rows = reader.records().map(|row| row.map_err(|error| unreadable(list, &error))).peekable();
    let root = list.parent().unwrap_or(Path::new(""));
    let Some(first) = rows.next().transpose()? else {
        return Err(fault(list.display(), "it is empty: write a path and a label into each line".to_owned()));
    };
    let second = rows.peek().and_then(|row| row.as_ref().ok());
    let columns = columns(&first, second, root, into).map_err(|reason| fault(at(list, line(&first)), reason))?;
    let rows = (!columns.has_header).then_some(Ok(first)).into_iter().chain(rows);
    for row in rows {
        let row = row?;
        let place = at(list, line(&row));
        if let Some(long) = row.iter().map(str::len).find(|length| *length > LONGEST) {
            let reason =
                format!("it has a value of {long} bytes, and a path or class has at most {LONGEST}: look for a missing quote");
            into.refuse(Part::Train, Reason::Unfit, list, fault(place, reason))?;
            continue;
        }
        let row_part = match (part, columns.split.map(|split| row.get(split).unwrap_or_default())) {
            (Some(part), _) => part,
            (None, None) => Part::Train,
            (None, Some(name)) => match Part::find(name.strip_suffix("ing").unwrap_or(name)) {
                Some(part) => part,
                None => {
                    let reason = format!("its part {name:?} is none of train, val and test: mend it");
                    into.refuse(Part::Train, Reason::NoLabel, list, fault(place, reason))?;
                    continue;
                }
            },
        };
        let name = row.get(columns.path).unwrap_or_default();
        let path = root.join(name);
        let labels = match &columns.labels {
            LabelColumns::Named(column) => named(row.get(*column).unwrap_or_default(), delimiter, into),
            LabelColumns::Each(classes) => each(&row, classes),
        };
        let labels = match labels {
            _ if name.is_empty() => Err((Reason::Missing, "it names no picture".to_owned())),
            Err(reason) => Err((Reason::NoLabel, reason)),
            Ok(_) if !path.is_file() => {
                Err((Reason::Missing, format!("there is no file {name}: paths are relative to the list's folder")))
            }
            Ok(labels) => match seen.insert(path.clone(), (number, line(&row))) {
                Some((number, line)) => {
                    let before = at(&lists[number].1, line);
                    Err((Reason::Unfit, format!("{name} is named before, in {before}: keep one of both")))
                }
                None => Ok(labels),
            },
        };
        match labels {
            Ok(labels) => into.add(row_part, labels, |labels| PictureFile::new(path, labels)),
            Err((reason, told)) => into.refuse(row_part, reason, &path, fault(place, told))?,
        }
    }
    Ok(())
}

/// Where a row is, for messages.
fn at(list: &Path, line: u64) -> String {
    format!("{}, line {line}", list.display())
}

fn line(row: &StringRecord) -> u64 {
    row.position().map_or(1, csv::Position::line)
}

fn unreadable(list: &Path, error: &csv::Error) -> DatasetError {
    let line = error.position().map(|position| format!(", line {}", position.line())).unwrap_or_default();
    let reason = match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "it is no UTF-8: save it as UTF-8".to_owned(),
        _ => format!("it cannot be read: {error}"),
    };
    fault(format!("{}{line}", list.display()), reason)
}

/// What stands between columns: a tab in `.tsv`, else what the first line has.
fn delimiter(list: &Path, start: &[u8]) -> u8 {
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match list.extension() {
        Some(end) if end.eq_ignore_ascii_case("tsv") => b'\t',
        _ => [b',', b'\t', b';'].into_iter().find(|byte| line.contains(byte)).unwrap_or(b','),
    }
}

fn columns(first: &StringRecord, second: Option<&StringRecord>, root: &Path, into: &mut Gathered) -> Result<Columns, String> {
    let plain = |cell: &str| cell.to_lowercase().replace([' ', '_', '-'], "");
    let header: Vec<String> = first.iter().map(plain).collect();
    let find = |names: &[&str]| names.iter().find_map(|name| header.iter().position(|cell| cell == name));
    let names_file = |row: &StringRecord| row.get(0).is_some_and(|cell| !cell.is_empty() && root.join(cell).is_file());
    let (path, label, split) = (find(&PATHS), find(&LABELS), find(&SPLITS));
    // A first line that names a picture is no header, even if the picture is missing.
    let is_picture = first.get(0).is_some_and(|cell| by_name(cell).is_none());
    let has_header = !names_file(first) && (path.is_some() || label.is_some() || (!is_picture && second.is_some_and(names_file)));
    if !has_header {
        return match first.len() {
            0 | 1 => Err("it has one column: write a path and a label into each line".to_owned()),
            _ => {
                let tells = |row: &StringRecord, column| row.get(column).is_some_and(|cell| Part::find(cell).is_some());
                let split = (2..first.len()).find(|column| tells(first, *column) && second.is_none_or(|row| tells(row, *column)));
                Ok(Columns { path: 0, split, labels: LabelColumns::Named(1), has_header })
            }
        };
    }
    let free = |but: &[Option<usize>]| (0..header.len()).filter(|column| !but.contains(&Some(*column))).collect::<Vec<_>>();
    let no_path = || "it has no column of paths: call one `path`".to_owned();
    let path = path.or_else(|| free(&[label, split]).first().copied()).ok_or_else(no_path)?;
    let others = free(&[Some(path), split]);
    let cell = |column: &usize| second.and_then(|row| row.get(*column)).unwrap_or_default();
    let is_flag = |column: &usize| flag(cell(column)).is_some();
    let is_number = |column: &usize| cell(column).is_empty() || cell(column).parse::<f64>().is_ok();
    // A blank among flags is a fault of its line.
    let of_flags = |columns: &[usize]| {
        columns.iter().any(is_flag) && columns.iter().all(|column| is_flag(column) || cell(column).is_empty())
    };
    let labels = match (label, others.as_slice()) {
        (Some(label), _) => LabelColumns::Named(label),
        (None, several @ [_, _, ..]) if of_flags(several) => {
            let (mut classes, mut known) = (Vec::new(), HashSet::new());
            for column in several {
                let name = &first[*column];
                let class = into.resolve(&Label::Text(name.to_owned())).map_err(|reason| format!("column {name}: {reason}"))?;
                if !known.insert(class) {
                    return Err(format!("two columns are called {name}: rename one of them"));
                }
                classes.push((*column, class));
            }
            LabelColumns::Each(classes)
        }
        (None, several @ [_, _, ..]) if several.iter().any(is_flag) && several.iter().all(is_number) => {
            let other = several.iter().find(|column| !is_flag(column) && !cell(column).is_empty());
            let (name, cell) = other.map(|column| (&first[*column], cell(column))).unwrap_or_default();
            return Err(format!(
                "column {name} has {cell}, and others have 0 and 1: write 0 or 1 for each class, or call the column of classes `label`"
            ));
        }
        (None, [other, ..]) => LabelColumns::Named(*other),
        (None, []) => return Err("it has no column of labels: call one `label`".to_owned()),
    };
    Ok(Columns { path, split, labels, has_header })
}

/// The classes of a cell with their names.
fn named(cell: &str, delimiter: u8, into: &mut Gathered) -> Result<Vec<i64>, String> {
    let separators = SEPARATORS.iter().filter(|separator| **separator != char::from(delimiter));
    let names = cell.split(|letter| separators.clone().any(|separator| *separator == letter));
    names.map(|name| into.resolve(&Label::Text(name.trim().to_owned()))).collect()
}

/// The classes whose columns have a 1.
fn each(row: &StringRecord, classes: &[(usize, i64)]) -> Result<Vec<i64>, String> {
    let mut labels = Vec::new();
    for (column, class) in classes {
        let cell = row.get(*column).unwrap_or_default();
        match flag(cell) {
            Some(true) => labels.push(*class),
            Some(false) => {}
            None => return Err(format!("{cell:?} in column {} is neither 0 nor 1", column + 1)),
        }
    }
    Ok(labels)
}

/// A cell of 0 or 1, or as Python writes them: `False` or `True`.
fn flag(cell: &str) -> Option<bool> {
    match cell {
        "0" | "0.0" => Some(false),
        "1" | "1.0" => Some(true),
        _ if cell.eq_ignore_ascii_case("false") => Some(false),
        _ if cell.eq_ignore_ascii_case("true") => Some(true),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::folder::tests::{preprocess, write};
    use crate::{Dataset, ImageFolder, Task};
    use tch::Tensor;
    use tempfile::TempDir;

    /// Six pictures `cat/1.png` to `dog/3.png`, and a list of this text beside them.
    fn listed(name: &str, text: impl AsRef<[u8]>) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in ["cat/1.png", "cat/2.png", "cat/3.png", "dog/1.png", "dog/2, too.png", "dog/3.png"] {
            write(&folder.path().join(file), [8, 8], 1);
        }
        std::fs::write(folder.path().join(name), text).unwrap();
        folder
    }

    fn open(folder: &TempDir, name: &str) -> Result<FolderParts, DatasetError> {
        FolderParts::open(folder.path().join(name), &preprocess(8))
    }

    /// Each picture below the folder with the names of its classes.
    fn pictures(folder: &TempDir, part: &ImageFolder) -> Vec<(String, Vec<String>)> {
        let name = |path: &Path| path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
        let classes = |labels: &[i64]| labels.iter().map(|label| part.classes()[*label as usize].clone()).collect();
        part.files().iter().map(|file| (name(file.path()), classes(file.labels()))).collect()
    }

    fn pair(path: &str, classes: &[&str]) -> (String, Vec<String>) {
        (path.to_owned(), classes.iter().map(|class| (*class).to_owned()).collect())
    }

    /// What is told of a list, without the folder.
    fn told(name: &str, text: impl AsRef<[u8]>) -> String {
        let folder = listed(name, text);
        let error = open(&folder, name).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn columns_are_found_with_and_without_a_header() {
        for (name, text) in [
            ("l.csv", "cat/1.png,cat\n\"dog/2, too.png\",dog\n"),
            ("l.csv", "path,label\ncat/1.png,cat\n\"dog/2, too.png\",dog\n"),
            ("l.csv", "\u{feff}id,Class Name,File_Name\r\n7,cat,cat/1.png\r\n8,dog,\"dog/2, too.png\"\r\n"),
            ("l.csv", "what,who\n cat/1.png , cat\n\"dog/2, too.png\",dog"),
            ("l.tsv", "image\tlabel\ncat/1.png\tcat\ndog/2, too.png\tdog\n"),
            ("l.csv", "image;label\ncat/1.png;cat\ndog/2, too.png;dog\n"),
        ] {
            let folder = listed(name, text);
            let parts = open(&folder, name).unwrap();
            let expected = [pair("cat/1.png", &["cat"]), pair("dog/2, too.png", &["dog"])];
            assert_eq!(pictures(&folder, &parts.train), expected, "{text:?}");
            assert!(parts.val.is_none() && parts.test.is_none());
            assert_eq!((parts.train.name(), parts.train.task()), (name, Task::SingleLabel));
        }
    }

    #[test]
    fn parts_come_from_a_column_or_from_lists_of_their_names() {
        let column = listed(
            "l.csv",
            "split,path,label\ntrain,cat/1.png,cat\nTraining,dog/1.png,dog\nvalid,cat/2.png,cat\ntest,dog/3.png,dog\n",
        );
        let lists = listed("train.csv", "cat/1.png,cat\ndog/1.png,dog\n");
        std::fs::write(lists.path().join("Validation.csv"), "cat/2.png,cat\n").unwrap();
        std::fs::write(lists.path().join("test.tsv"), "dog/3.png\tdog\n").unwrap();
        let unnamed = listed("l.csv", "cat/1.png,cat,train\ndog/1.png,dog,train\ncat/2.png,cat,val\ndog/3.png,dog,test\n");
        for (folder, name) in [(&column, "l.csv"), (&lists, ""), (&unnamed, "l.csv")] {
            let parts = open(folder, name).unwrap();
            assert_eq!(pictures(folder, &parts.train), [pair("cat/1.png", &["cat"]), pair("dog/1.png", &["dog"])]);
            assert_eq!(pictures(folder, parts.val.as_ref().unwrap()), [pair("cat/2.png", &["cat"])]);
            assert_eq!(pictures(folder, parts.test.as_ref().unwrap()), [pair("dog/3.png", &["dog"])]);
        }
        // One of them alone is a whole.
        assert_eq!(open(&lists, "test.tsv").unwrap().train.len(), 1);
        let error = told("l.csv", "split,path,label\ntrain,cat/1.png,cat\ntest,dog/1.png,dog\n");
        assert_eq!(error, "l.csv: its part `test` has the class dog, and no picture to train with has it: add some");
    }

    #[test]
    fn numbers_are_sorted_as_numbers_and_named_by_a_file() {
        let list = "cat/1.png,10\ncat/2.png,9\ndog/1.png,1\n";
        let folder = listed("l.csv", list);
        assert_eq!(open(&folder, "l.csv").unwrap().train.classes(), ["1", "9", "10"]);
        std::fs::write(folder.path().join("classes.txt"), "\u{feff}owl\ndog\ncat\n").unwrap();
        std::fs::write(folder.path().join("l.csv"), "cat/1.png,2\ncat/2.png,cat\ndog/1.png,1\n").unwrap();
        let train = open(&folder, "l.csv").unwrap().train;
        assert_eq!(train.classes(), ["owl", "dog", "cat"]);
        assert_eq!(train.files().iter().map(|file| file.label()).collect::<Vec<_>>(), [2, 2, 1]);
        let told = |label: &str| {
            std::fs::write(folder.path().join("l.csv"), format!("cat/1.png,cat\ndog/1.png,{label}\n")).unwrap();
            open(&folder, "l.csv").unwrap_err().to_string()
        };
        assert!(told("3").ends_with("l.csv, line 2: its class 3 is out of range: classes.txt names 3, which count from 0"));
        assert!(told("-1").ends_with("l.csv, line 2: its class -1 is not in classes.txt: add it there, or mend the label"));
        assert!(told("cow").contains("line 2: its class cow is not in classes.txt"));
        std::fs::write(folder.path().join("classes.txt"), "owl\ndog\nowl\n").unwrap();
        assert!(told("dog").ends_with("classes.txt, line 3: this class is named before: remove one of both lines"));
    }

    #[test]
    fn several_labels_stand_in_a_cell_or_in_columns() {
        for (text, expected) in [
            ("cat/1.png,fur|cat\ncat/2.png,cat\ndog/1.png,dog;fur;dog\n", [vec!["cat", "fur"], vec!["cat"], vec!["dog", "fur"]]),
            (
                "dog,cat,file,fur\n0,1,cat/1.png,1\n0,0,cat/2.png,0\n1,0,dog/1.png,1.0\n",
                [vec!["cat", "fur"], vec![], vec!["dog", "fur"]],
            ),
            (
                "file,cat,dog,fur\ncat/1.png,True,False,True\ncat/2.png,true,false,FALSE\ndog/1.png,False,1,True\n",
                [vec!["cat", "fur"], vec!["cat"], vec!["dog", "fur"]],
            ),
        ] {
            let folder = listed("l.csv", text);
            let train = open(&folder, "l.csv").unwrap().train;
            assert_eq!((train.classes(), train.task()), (&["cat", "dog", "fur"].map(str::to_owned)[..], Task::MultiLabel));
            let names = ["cat/1.png", "cat/2.png", "dog/1.png"];
            let expected: Vec<_> = names.iter().zip(&expected).map(|(name, classes)| pair(name, classes)).collect();
            assert_eq!(pictures(&folder, &train), expected);
            let batch = train.batch(&Tensor::from_slice(&[2_i64, 0])).unwrap();
            let targets = Vec::<f32>::try_from(batch.targets().flatten(0, -1)).unwrap();
            assert_eq!((batch.targets().size(), targets), (vec![2, 3], vec![0.0, 1.0, 1.0, 1.0, 0.0, 1.0]));
        }
        // One 1 in each line: classes exclude each other.
        let folder = listed("l.csv", "file,dog,cat\ncat/1.png,0,1\ndog/1.png,1,0\n");
        assert_eq!(open(&folder, "l.csv").unwrap().train.task(), Task::SingleLabel);
        assert_eq!(
            told("l.csv", "file,dog,cat\ncat/1.png,0,1\ndog/1.png,1,\n"),
            "l.csv, line 3: \"\" in column 3 is neither 0 nor 1"
        );
        assert!(told("l.csv", "file,cat,cat\ncat/1.png,0,1\n").contains("line 1: two columns are called cat"));
        // -1 for those that nobody is sure of: the first column alone would be a wrong class.
        let unsure = told("l.csv", "file,cat,dog,fur\ncat/1.png,0,-1,1\n");
        assert!(unsure.contains("line 1: column dog has -1, and others have 0 and 1: write 0 or 1 for each class"), "{unsure}");
    }

    #[test]
    fn every_fault_names_its_line_or_is_counted() {
        let missing = "l.csv, line 3: there is no file cat/9.png: paths are relative to the list's folder";
        assert_eq!(told("l.csv", "path,label\ncat/1.png,cat\ncat/9.png,cat\n"), missing);
        assert_eq!(told("l.csv", "cat/1.png,cat\ndog/1.png,\n"), "l.csv, line 2: it has no class");
        assert_eq!(told("l.csv", "cat/1.png,cat\ndog/1.png,dog||fur\n"), "l.csv, line 2: it has no class");
        assert_eq!(told("l.csv", "cat/1.png,cat\ndog/1.png\n"), "l.csv, line 2: it has no class");
        assert_eq!(told("l.csv", "cat/1.png,cat\n,dog\n"), "l.csv, line 2: it names no picture");
        let twice = "l.csv, line 3: cat/1.png is named before, in l.csv, line 1: keep one of both";
        assert_eq!(told("l.csv", "cat/1.png,cat\ndog/1.png,dog\ncat/1.png,cat\n"), twice);
        assert_eq!(told("l.csv", ""), "l.csv: it is empty: write a path and a label into each line");
        assert_eq!(told("l.csv", "cat/1.png\n"), "l.csv, line 1: it has one column: write a path and a label into each line");
        assert_eq!(told("l.csv", "path,label\n"), "l.csv: it names no picture that can be taken: add some");
        assert_eq!(told("l.csv", b"path,label\ncat/1.png,caf\xe9\n"), "l.csv, line 2: it is no UTF-8: save it as UTF-8");
        let part = "l.csv, line 2: its part \"dev\" is none of train, val and test: mend it";
        assert_eq!(told("l.csv", "path,label,split\ncat/1.png,cat,dev\n"), part);

        let long = told("l.csv", format!("cat/1.png,cat\n{},dog\n", "x".repeat(900_000)));
        assert_eq!(long.split(',').nth(1), Some(" line 2: it has a value of 900000 bytes"));
        assert!(long.len() < 200, "{long}");

        let folder = listed("l.csv", "cat/1.png,cat\ndog/1.png,\ncat/9.png,cat\ncat/1.png,dog\ndog/3.png,dog\n");
        let train = FolderParts::open_with(folder.path().join("l.csv"), true, &mut |_, _, _| true).unwrap().train;
        assert_eq!(pictures(&folder, &train), [pair("cat/1.png", &["cat"]), pair("dog/3.png", &["dog"])]);
        let reasons: Vec<_> = train.left_out().reasons().map(|(reason, count, _)| (reason.clone(), count)).collect();
        assert_eq!(reasons, [(Reason::Missing, 1), (Reason::NoLabel, 1), (Reason::Unfit, 1)]);
        assert!(train.left_out().to_string().contains("1 that is not there ("), "{}", train.left_out());
    }
}
