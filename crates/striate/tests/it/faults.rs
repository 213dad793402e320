//! Runs on a disk that fails: each ends well or with an error of one line, and goes on to the same weights.
use crate::tints;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use striate::{BUNDLE, Outcome, Recipe, Run};
use striate_files::{faults_done, inject_fault};

/// Two steps with two checkpoints after each, one of which is kept, an evaluation, a bundle.
fn recipe(data: &Path) -> Recipe {
    let text = format!(
        "[model]\nname = 'resnet-tiny'\n[data]\nname = 'image-folder'\ndir = '{}'\n\
         [train]\nepochs = 1\nbatch_size = 6\nlr = 0.02\nthreads = 1\ncheckpoint_steps = 1\nkeep_steps = 1",
        data.display()
    );
    Recipe::parse(&text, Path::new("tints.toml")).unwrap()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn a_run_loses_nothing_whichever_operation_of_its_disk_fails() {
    let place = tempfile::tempdir().unwrap();
    let (data, folder) = (place.path().join("data"), place.path().join("run"));
    tints::write(&data.join("train"), tints::CLASSES, 4);
    tints::write(&data.join("val"), tints::CLASSES, 1);
    let run = || Run::new(recipe(&data)).folder(&folder);
    run().run().unwrap();
    let whole = files(&folder);
    for lasting in [false, true] {
        for number in (1..).step_by(if lasting { 4 } else { 1 }) {
            fs::remove_dir_all(&folder).unwrap();
            inject_fault(number, lasting);
            let ended = run().run();
            let failed = faults_done();
            inject_fault(0, false);
            let left = files(&folder);
            assert!(left.keys().all(|name| whole.contains_key(name)), "{number}: {:?}", left.keys());
            if let Err(error) = &ended {
                let line = error.to_string();
                assert!(
                    line.starts_with("cannot ") && !line.contains('\n') || line.contains("cannot be written"),
                    "{number}: {line}"
                );
                assert!(!error.is_failure(), "{line}");
            }
            // What was reached is there, and going on comes to the same.
            let next = if left.contains_key("last.safetensors") { Run::resume(&folder).unwrap() } else { run() };
            assert!(matches!(next.run().unwrap(), Outcome::Finished { .. }));
            let now = files(&folder);
            assert_eq!(now[BUNDLE], whole[BUNDLE], "{number}");
            assert_eq!(now.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
            let steps = |name: &str| String::from_utf8(now[name].clone()).unwrap().matches("step_done").count();
            assert!(steps("metrics.jsonl") >= 2);
            let epochs = String::from_utf8(now["metrics.csv"].clone()).unwrap();
            assert!(epochs.lines().count() == 2 && epochs.lines().nth(1).unwrap().starts_with("1,2,"), "{number}: {epochs}");
            if failed == 0 {
                assert!(ended.is_ok() && number > 20, "{number}");
                break;
            }
        }
    }
}
