//! Folders that are installed under a lock.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use striate_fetch::{FetchError, Installed, install_dir, replace_dir};

fn fill(folder: &Path) -> Result<(), FetchError> {
    fs::write(folder.join("content"), "whole").map_err(|e| FetchError::io("write", folder, e))
}

#[test]
fn a_failed_or_killed_install_leaves_no_folder() {
    let home = tempfile::tempdir().unwrap();
    let dest = home.path().join("deep/thing");
    let failed = install_dir(
        &dest,
        || {},
        |folder| {
            fill(folder)?;
            Err(FetchError::NoCacheDir)
        },
    );
    assert!(matches!(failed, Err(FetchError::NoCacheDir)));
    assert!(!dest.exists());

    // What a killed process leaves behind.
    let unfinished = home.path().join("deep/.thing.abcdefABCDEF.tmp");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("half"), "").unwrap();
    assert_eq!(install_dir(&dest, || {}, fill).unwrap(), Installed::Now);
    assert!(!unfinished.exists() && !dest.join("half").exists());
    assert_eq!(fs::read_to_string(dest.join("content")).unwrap(), "whole");
    assert_eq!(install_dir(&dest, || {}, |_| Err(FetchError::NoCacheDir)).unwrap(), Installed::Before);
}

#[test]
fn of_two_at_once_one_builds_and_the_other_waits() {
    let home = tempfile::tempdir().unwrap();
    let dest = home.path().join("thing");
    let (waited, built, building) = (AtomicUsize::new(0), AtomicUsize::new(0), Barrier::new(2));
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            install_dir(
                &dest,
                || {},
                |folder| {
                    building.wait();
                    while waited.load(Ordering::SeqCst) == 0 {
                        thread::yield_now();
                    }
                    built.fetch_add(1, Ordering::SeqCst);
                    fill(folder)
                },
            )
        });
        building.wait();
        let second = install_dir(
            &dest,
            || waited.store(1, Ordering::SeqCst),
            |folder| {
                built.fetch_add(1, Ordering::SeqCst);
                fill(folder)
            },
        );
        assert_eq!(first.join().unwrap().unwrap(), Installed::Now);
        assert_eq!(second.unwrap(), Installed::Before);
    });
    assert_eq!((waited.into_inner(), built.into_inner()), (1, 1));
}

#[test]
fn a_folder_stays_until_its_successor_is_whole() {
    let home = tempfile::tempdir().unwrap();
    let dest = home.path().join("thing");
    replace_dir(&dest, || {}, fill).unwrap();
    let content = || fs::read_to_string(dest.join("content")).unwrap();
    let failed = replace_dir(
        &dest,
        || {},
        |folder| {
            fill(folder)?;
            assert_eq!(content(), "whole");
            Err(FetchError::NoCacheDir)
        },
    );
    assert!(failed.is_err());
    assert_eq!(content(), "whole");
    let renew = |folder: &Path| fs::write(folder.join("content"), "new").map_err(|e| FetchError::io("write", folder, e));
    replace_dir(&dest, || {}, renew).unwrap();
    assert_eq!(content(), "new");
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the folder and its lock: {left:?}");
}
