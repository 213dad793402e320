//! The Chromium in which a test opens a page: wished for, not needed.

use std::process::{Command, Stdio};

/// Names that Chromium goes by.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Installs Debian's Chromium if there is none, where that needs no password: as root, with apt. Otherwise the test that
/// would open a page says that it was skipped.
pub(crate) fn install_where_possible() {
    if NAMES.iter().any(|name| succeeds(Command::new(name).arg("--version"))) {
        return;
    }
    if is_root() {
        eprintln!("installing Chromium, in which a test opens a page ...");
        let apt = |args: &[&str]| succeeds(Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"));
        let install = || apt(&["install", "--yes", "--no-install-recommends", "chromium"]);
        if install() || (apt(&["update"]) && install()) {
            return;
        }
    }
    eprintln!("no Chromium: the test that opens a page will say that it is skipped");
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
