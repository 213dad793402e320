//! `data`: fetches datasets, or lists them.
use crate::cli::DataArgs;
use crate::error::CliError;
use crate::{print, progress};
use striate_datasets::{catalogue, fetch};

pub(crate) fn data(args: &DataArgs) -> Result<(), CliError> {
    if args.names.is_empty() {
        let mut text = format!("{:16}  {:>8}  {:>7}  {:>8}  licence\n", "dataset", "training", "test", "download");
        for entry in catalogue() {
            let [train, test] = entry.examples;
            let download = if entry.megabytes == 0 { "built in".to_owned() } else { format!("{} MB", entry.megabytes) };
            text += &format!("{:16}  {train:>8}  {test:>7}  {download:>8}  {}\n", entry.name, entry.licence);
        }
        return print(&text);
    }
    for name in &args.names {
        let bar = progress::Download::new();
        let folder = fetch(name, &mut |file, done, total| bar.update(file, done, total))?;
        match folder {
            Some(folder) => print(&format!("{name}: {}\n", folder.display()))?,
            None => print(&format!("{name}: built in\n"))?,
        }
    }
    Ok(())
}
