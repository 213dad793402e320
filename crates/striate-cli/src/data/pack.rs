//! `data pack`: pictures into shards, and back into folders.
use crate::data::args::DataPackArgs;
use crate::error::CliError;
use crate::output::{counted, new_or_empty};
use crate::progress::{Download, Work};
use crate::{print, signals};
use striate::data::{FOLDER, section};
use striate::datasets::{Dataset, FolderParts, Packed, pack as into_shards, unpack};
use striate_torch::Shown;

pub(crate) fn pack(args: &DataPackArgs) -> Result<(), CliError> {
    let section = section(&args.source)?;
    if section.name != FOLDER {
        return Err(CliError::Usage(format!("{}: name a folder of pictures, a list or shards", args.source)));
    }
    new_or_empty(&args.out, "OUT")?;
    let bar = Download::new();
    let parts = FolderParts::open_with(&section.dir, false, &mut |file, done, of| bar.update(file, done, of))?;
    drop(bar);
    for part in parts.iter().filter(|part| !part.left_out().is_harmless()) {
        tracing::warn!("{}: {}", part.name(), part.left_out());
    }
    let work = Work::new();
    let mut progress = |done, of| {
        work.update("packing", done, Some(of));
        !signals::stopped()
    };
    let are_shards = parts.train.files().iter().any(|file| file.archive().is_some());
    let packed = match (are_shards, args.shard_size) {
        (true, None) => unpack(&parts, &args.out, &mut progress),
        (_, size) => into_shards(&parts, &args.out, size.unwrap_or_default(), &mut progress),
    };
    let Packed { pictures, files, bytes } = packed?;
    drop(work);
    let what = if are_shards && args.shard_size.is_none() { "folder" } else { "shard" };
    let (pictures, bytes, files) = (counted(pictures, "picture"), counted(bytes, "byte"), counted(files, what));
    print(&format!("{pictures} ({bytes}) in {files} in {}\n", Shown(args.out.display())))
}
