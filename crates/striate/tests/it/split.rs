//! A folder that is split: copies stay together, and nothing is left of what was stopped.
use std::collections::BTreeSet;
use std::path::Path;
use striate::Error;
use striate::datasets::image::RgbImage;
use striate::split::{SplitOptions, split};

/// Ten pictures of each class; those whose numbers differ by five are the same.
fn pictures(root: &Path) {
    for (class, red) in [("rose", 200), ("tulip", 100)] {
        std::fs::create_dir_all(root.join(class)).unwrap();
        for number in 0..10 {
            let picture = RgbImage::from_pixel(8, 8, [red, number % 5, 0].into());
            picture.save(root.join(class).join(format!("{number}.png"))).unwrap();
        }
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn copies_go_where_the_first_goes() {
    let root = tempfile::tempdir().unwrap();
    let (source, out) = (root.path().join("all"), root.path().join("parts"));
    pictures(&source);
    let mut options = SplitOptions::default();
    options.val = 0.4;
    let report = split(&source, &out, &options, &mut |_, _, _| true).unwrap();
    for class in ["rose", "tulip"] {
        let (train, val) = (names(&out.join("train").join(class)), names(&out.join("val").join(class)));
        assert_eq!(train.len() + val.len(), 10);
        for number in 0..5 {
            let both = [number, number + 5].map(|number| format!("{number}.png"));
            assert!(
                both.iter().all(|name| train.contains(name)) || both.iter().all(|name| val.contains(name)),
                "{class} {both:?}"
            );
        }
    }
    let count = |part: &str| ["rose", "tulip"].map(|class| names(&out.join(part).join(class)).len()).iter().sum::<usize>();
    assert_eq!(report.parts, [("train".to_owned(), count("train")), ("val".to_owned(), count("val"))]);
    assert!(report.moved > 0 && count("val") > 0, "{report:?}");
}

#[test]
fn parts_do_not_go_into_what_is_split() {
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("all");
    pictures(&source);
    let told = split(&source, &source.join("parts"), &SplitOptions::default(), &mut |_, _, _| true).unwrap_err().to_string();
    assert!(told.contains("all/parts lies within it: name a folder elsewhere"), "{told}");
    assert_eq!(names(&source), BTreeSet::from(["rose".to_owned(), "tulip".to_owned()]));
}

#[test]
fn a_split_that_is_stopped_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (source, out) = (root.path().join("all"), root.path().join("deep/parts"));
    pictures(&source);
    for stop in ["comparing", "writing"] {
        let told = split(&source, &out, &SplitOptions::default(), &mut |what, done, _| what != stop || done < 3);
        assert!(matches!(told, Err(Error::Stopped)), "{told:?}");
        assert_eq!(names(root.path()), BTreeSet::from(["all".to_owned()]));
    }
}
