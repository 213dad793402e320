//! Training, going on, evaluation, and answers to eight threads, in one process at the same time. Two seconds of it are a test. For
//! hours of it, which print a line each minute, look whether memory, open files or rates change:
//!
//! `STRIATE_SOAK_MINUTES=480 cargo test --release -p striate --test it soak -- --nocapture`
use crate::tints;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use striate::data::Opened;
use striate::{BUNDLE, Classifier, Outcome, Recipe, Run};

const ANSWERED: usize = 8;

/// A run of two epochs, stopped after the first and gone on with, and its bundle's accuracy.
fn train(recipe: &Recipe, folder: &Path) -> f64 {
    let stopped = Run::new(recipe.clone()).folder(folder).pause_after(1).run().unwrap();
    assert!(matches!(stopped, Outcome::Stopped { .. }));
    let Outcome::Finished { summary, .. } = Run::resume(folder).unwrap().run().unwrap() else { panic!("nobody stops it") };
    let classifier = Classifier::open(folder.join(BUNDLE)).unwrap();
    let test = Opened::to_judge(&recipe.data, &mut |_, _, _| true).unwrap();
    let accuracy = classifier.evaluate(test, 16).unwrap().accuracy;
    assert_eq!(accuracy, summary.test.accuracy);
    fs::remove_dir_all(folder).unwrap();
    accuracy
}

#[cfg(target_os = "linux")]
#[test]
fn soak() {
    let minutes: Option<u32> = std::env::var("STRIATE_SOAK_MINUTES").ok().map(|minutes| minutes.parse().unwrap());
    let (lines, pause) = minutes.map_or((1, Duration::from_secs(2)), |minutes| (minutes, Duration::from_mins(1)));
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    for part in ["train", "val"] {
        tints::write(&data.join(part), tints::CLASSES, 16);
    }
    let text = format!(
        "[model]\nname = 'resnet-tiny'\n[data]\nname = 'image-folder'\ndir = '{}'\n[augment]\nhflip = true\n\
         [train]\nepochs = 2\nbatch_size = 8\nlr = 0.02\nthreads = 1\n[average]\nkind = 'ema'\ndecay = 0.9",
        data.display()
    );
    let recipe = Recipe::parse(&text, Path::new("soak.toml")).unwrap();
    let picture = data.join("val/green/3.png");
    let classifier = Classifier::open(tints::write_bundle(place.path())).unwrap();
    let expected = classifier.classify(&*picture).unwrap();
    let (runs, answers, ends) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                train(&recipe, &place.path().join("run"));
                runs.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..ANSWERED {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    assert_eq!(classifier.classify(&*picture).unwrap(), expected);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        println!("minute,resident MiB,open files,threads,runs,pictures");
        let begun = Instant::now();
        for line in 1..=lines {
            thread::sleep((begun + pause * line).saturating_duration_since(Instant::now()));
            let entries = |folder| fs::read_dir(folder).unwrap().count();
            let memory = striate_torch::resident_memory().unwrap() >> 20;
            let counts = [&runs, &answers].map(|count| count.swap(0, Ordering::Relaxed));
            println!("{line},{memory},{},{},{},{}", entries("/proc/self/fd"), entries("/proc/self/task"), counts[0], counts[1]);
        }
        ends.store(true, Ordering::Relaxed);
    });
}
