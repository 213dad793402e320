//! What the fuzz targets share: the readers, which an ordinary test of `striate` gives the same corpus, and what counts as a find.

use std::panic::set_hook;
use std::sync::Once;
use striate_torch::is_contained;

#[path = "../../crates/striate/tests/hostile/readers.rs"]
pub mod readers;

/// Gives a reader these bytes. A panic of Striate's own code is a find, even where it is caught. One of a format's library is not,
/// as long as it is caught.
pub fn run(reader: readers::Reader, bytes: &[u8]) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        set_hook(Box::new(|panic| {
            let foreign = panic.location().is_some_and(|place| place.file().contains("/registry/"));
            if !(foreign && is_contained()) {
                eprintln!("{panic}");
                std::process::abort();
            }
        }));
    });
    reader(bytes);
}
