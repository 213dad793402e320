//! `data split`: a folder of classes in parts.
use crate::data::args::DataSplitArgs;
use crate::error::CliError;
use crate::output::new_or_empty;
use crate::progress::Work;
use crate::{print, print_json, signals};
use striate::split::{SplitOptions, split};
use striate_torch::Shown;

pub(crate) fn split_folder(args: &DataSplitArgs) -> Result<(), CliError> {
    new_or_empty(&args.out, "OUT")?;
    let mut options = SplitOptions::default();
    (options.val, options.test, options.seed, options.link) = (args.fraction, args.test, args.seed, args.link);
    let work = Work::new();
    let report = split(&args.source, &args.out, &options, &mut |what, done, of| {
        work.update(what, done, of);
        !signals::stopped()
    })?;
    drop(work);
    if args.json {
        return print_json(&report);
    }
    let parts: Vec<String> = report.parts.iter().map(|(part, count)| format!("{part} {count}")).collect();
    let moved = match report.moved {
        0 => String::new(),
        1 => "; 1 copy was moved to its picture's part".to_owned(),
        more => format!("; {more} copies were moved to their pictures' parts"),
    };
    print(&format!("{}: {}{moved}\n", Shown(args.out.display()), parts.join(", ")))
}
