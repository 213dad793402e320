//! Programs that tests wish for, and do not need.

use std::process::{Command, Stdio};

/// One of them.
pub(crate) struct Wish {
    /// Names that it goes by.
    names: &'static [&'static str],
    /// Debian's package with it.
    package: &'static str,
    /// What is done with it.
    purpose: &'static str,
}

/// A browser.
pub(crate) const CHROMIUM: Wish =
    Wish { names: &["chromium", "chromium-browser", "google-chrome"], package: "chromium", purpose: "open a page in it" };
/// What clicks in a browser.
pub(crate) const CHROMEDRIVER: Wish = Wish { names: &["chromedriver"], package: "chromium-driver", purpose: "click on a page" };
/// A processor of another kind.
pub(crate) const QEMU: Wish =
    Wish { names: &["qemu-x86_64"], package: "qemu-user", purpose: "run kernels as on older processors" };

/// What refuses calls of the system.
pub(crate) const STRACE: Wish = Wish { names: &["strace"], package: "strace", purpose: "refuse threads and memory to a program" };

impl Wish {
    /// Whether it is there, or could be installed where that needs no password: as root, with apt. Says so if not.
    pub(crate) fn come_true(&self) -> bool {
        if self.names.iter().any(|name| succeeds(Command::new(name).arg("--version"))) {
            return true;
        }
        let Self { package, purpose, .. } = self;
        if is_root() {
            eprintln!("installing {package}, for tests that {purpose} ...");
            let apt = |args: &[&str]| succeeds(Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"));
            let install = || apt(&["install", "--yes", "--no-install-recommends", package]);
            if install() || (apt(&["update"]) && install()) {
                return true;
            }
        }
        eprintln!("no {package}: tests that {purpose} are skipped");
        false
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
