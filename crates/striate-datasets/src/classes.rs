//! Classes by name.

use crate::DatasetError;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use tch::Tensor;
use unicode_normalization::UnicodeNormalization;

/// The name in the form in which names are compared: macOS writes an accent as a letter of its own,
/// other systems don't.
pub(crate) fn normal(name: &str) -> String {
    name.nfc().collect()
}

/// A path's last part, as text. What is no UTF-8 in it is replaced.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// For each of `ours`, its place in `wanted`.
///
/// # Errors
///
/// [`DatasetError::OtherClasses`] when `wanted` lacks one of them, and [`DatasetError::AmbiguousClass`] when it has one twice, as
/// ImageNet's has `crane`; but these may be all of `wanted` in the same order.
pub(crate) fn places(dataset: &str, ours: &[String], wanted: &[String]) -> Result<Vec<i64>, DatasetError> {
    if ours == wanted {
        return Ok((0..).take(ours.len()).collect());
    }
    let mut places: HashMap<String, i64> = HashMap::new();
    for (name, place) in wanted.iter().zip(0..) {
        if places.insert(normal(name), place).is_some() && ours.iter().any(|class| normal(class) == normal(name)) {
            return Err(DatasetError::AmbiguousClass { dataset: dataset.to_owned(), class: name.clone() });
        }
    }
    let place = |name: &String| places.get(&normal(name)).copied();
    match ours.iter().map(place).collect() {
        Some(found) => Ok(found),
        None => {
            let unknown = ours.iter().filter(|name| place(name).is_none()).cloned().collect();
            Err(DatasetError::OtherClasses { dataset: dataset.to_owned(), missing: absent(wanted, ours), unknown })
        }
    }
}

/// As [`places`], where none of `wanted` may be missing either.
pub(crate) fn same_places(dataset: &str, ours: &[String], wanted: &[String]) -> Result<Vec<i64>, DatasetError> {
    let found = places(dataset, ours, wanted)?;
    match absent(wanted, ours) {
        missing if missing.is_empty() => Ok(found),
        missing => Err(DatasetError::OtherClasses { dataset: dataset.to_owned(), missing, unknown: Vec::new() }),
    }
}

fn absent(names: &[String], from: &[String]) -> Vec<String> {
    let there: HashSet<String> = from.iter().map(|name| normal(name)).collect();
    names.iter().filter(|name| !there.contains(&normal(name))).cloned().collect()
}

/// Labels (int64) that count in `places` of classes, one for each of today's.
pub(crate) fn relabel(labels: &Tensor, places: &[i64]) -> Result<Tensor, DatasetError> {
    Ok(Tensor::f_from_slice(places)?.f_to_device(labels.device())?.f_index_select(0, labels)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_name_is_one_however_its_accents_are_written() {
        let wanted = names(&["a", "caf\u{e9}", "z"]);
        assert_eq!(places("d", &names(&["cafe\u{301}", "a"]), &wanted).unwrap(), [1, 0]);
        assert!(
            same_places("d", &names(&["cafe\u{301}", "a"]), &wanted).unwrap_err().to_string().ends_with("lacks the classes z")
        );
        assert_eq!(same_places("d", &names(&["z", "cafe\u{301}", "a"]), &wanted).unwrap(), [2, 1, 0]);
    }

    #[test]
    fn a_name_of_two_classes_is_refused_where_it_is_looked_for() {
        let wanted = names(&["crane", "cat", "crane"]);
        assert_eq!(places("birds", &wanted, &wanted).unwrap(), [0, 1, 2]);
        assert_eq!(places("birds", &names(&["cat"]), &wanted).unwrap(), [1]);
        let error = places("birds", &names(&["cat", "crane"]), &wanted).unwrap_err().to_string();
        assert_eq!(error, "birds: its class crane is the name of two that are expected: rename one of those");
    }

    #[test]
    fn names_that_differ_are_told_briefly() {
        let (ours, wanted) = (names(&["a", "B", "x\ny"]), names(&["a", "b", "c", "d", "e", "f", "g", "h"]));
        let error = places("pets", &ours, &wanted).unwrap_err().to_string();
        assert_eq!(error, "pets: it lacks the classes b, c, d, e, f and 2 more; it has classes that are not expected: B, x\\ny");
    }
}
