//! libtorch from PyTorch's own archive: CPU only, since the CUDA archives lack CUDA's libraries since 2.12.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use striate_fetch::Download;

use super::{Wanted, progress_bar, unpack::unpack};

const OFFICIAL: &str = "https://download.pytorch.org/libtorch";

/// The SHA-256 of archives. PyTorch publishes none; these are what package collections have pinned.
const CHECKSUMS: [(&str, &str); 2] = [
    ("cpu/libtorch-shared-with-deps-2.13.0%2Bcpu.zip", "edbf4cbed78433d803e90a65f1752e57783d164bce66c95c0872b2ab8f5c159e"),
    ("cpu/libtorch-macos-arm64-2.13.0.zip", "1e10c6c4dc2764150c9fb2ad28e1889191302734e7f939108e5d2f22f21a06f8"),
];

/// Downloads the archive into `downloads` and unpacks it into `folder`.
pub(super) fn install(folder: &Path, downloads: &Path, wanted: Wanted) -> Result<()> {
    let path = server_path(wanted)?;
    let base = env::var("STRIATE_LIBTORCH_URL").unwrap_or_else(|_| OFFICIAL.to_owned());
    let archive = downloads.join("libtorch.zip");
    let mut download = Download::new([format!("{}/{path}", base.trim_end_matches('/'))], &archive);
    let pinned = CHECKSUMS.iter().find(|(pinned, _)| *pinned == path).map(|(_, sum)| (*sum).to_owned());
    // Where no checksum is known, the archive's own CRC of each file has to do.
    if let Some(sum) = env::var("STRIATE_LIBTORCH_SHA256").ok().or(pinned) {
        download = download.sha256(sum);
    }
    let bar = progress_bar("downloading libtorch", 0)?;
    let fetched = download.fetch(&mut |done, total| {
        bar.set_length(total.unwrap_or(done));
        bar.set_position(done);
        true
    });
    bar.finish_and_clear();
    fetched?;
    unpack(&archive, folder, |path| {
        let path = path.strip_prefix("libtorch").ok()?;
        let needed = ["include", "lib", "build-version"].iter().any(|top| path.starts_with(top));
        needed.then(|| PathBuf::from(path))
    })
    .context("PyTorch's archive cannot be unpacked")
}

/// Where the archive for this machine lies on the server.
fn server_path(wanted: Wanted) -> Result<String> {
    let version = wanted.version;
    if wanted.cuda {
        bail!("it lacks CUDA's libraries");
    } else if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        Ok(format!("cpu/libtorch-shared-with-deps-{version}%2Bcpu.zip"))
    } else if cfg!(all(target_os = "macos", target_arch = "aarch64")) {
        Ok(format!("cpu/libtorch-macos-arm64-{version}.zip"))
    } else {
        bail!("there is none for this platform");
    }
}
