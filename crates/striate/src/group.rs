//! Runs that belong together, in a folder of theirs: those of several seeds, and the trials of a sweep.
use crate::run::Run;
use crate::run_folder::Claim;
use crate::runs::{is_in_use, is_run};
use crate::{Error, Outcome, Summary, together};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use striate_torch::contained;
use striate_train::distributed::Queue;
use striate_train::{LAST, Recipe, TrainError};
use toml::{Table, Value};

/// The most bytes of a file with a recipe in it.
const LONGEST: u64 = 1 << 20;
/// How long a process waits for a run's folder that one holds which counts as lost, and how often it looks.
const HELD: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(200);

/// One of the runs of a group, which is about to start or to go on.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Member<'m> {
    /// Its name, such as `seed 3`.
    pub name: &'m str,
    /// Its number, from 1.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

/// What a caller does to each run before it starts: listeners, data or networks of its own.
pub(crate) type Each<'a> = Box<dyn FnMut(Run<'a>, Member<'_>) -> Run<'a> + 'a>;

/// The folder of a group, which no other process writes to as long as this lives.
pub(crate) struct Group {
    claim: Claim,
    file: &'static str,
    is_new: bool,
}

impl Group {
    /// A new group in `folder`, or in a new one of this name below `runs`. Its `file` has `text`.
    pub(crate) fn begin(folder: Option<&Path>, name: &str, file: &'static str, text: &str) -> Result<Self, Error> {
        let is_new = folder.is_none_or(|folder| !folder.exists());
        if let Some(folder) = folder.filter(|folder| is_run(folder) || folder.join(LAST).exists() || group_file(folder).is_some())
        {
            let reason = "holds runs already: resume them, or take another folder".to_owned();
            return Err(Error::Folder { path: folder.into(), reason });
        }
        let claim = folder.map_or_else(|| Claim::of_new(name), Claim::of)?;
        let group = Self { claim, file, is_new };
        striate_files::write_bytes(&group.folder().join(file), text)?;
        Ok(group)
    }

    /// A group that was begun.
    pub(crate) fn resume(folder: &Path, file: &'static str) -> Result<Self, Error> {
        let claim = Claim::of(folder)?;
        striate_files::sweep(&folder.join(file))?;
        Ok(Self { claim, file, is_new: false })
    }

    /// The folder of a group for all processes of a queue, and the group for the one that begins it: the first to come.
    pub(crate) fn shared(
        queue: &Queue,
        own: Option<&Path>,
        begin: impl Fn() -> Result<Self, Error>,
    ) -> Result<(PathBuf, Option<Self>), Error> {
        let mut group = None;
        let told = queue.once(together::FOLDER, || {
            let folder = group.insert(begin()?).folder().to_string_lossy().into_owned();
            Ok::<_, Error>(Some(folder.into_bytes()))
        })?;
        let told = String::from_utf8_lossy(&told.ok_or(Error::Stopped)?).into_owned();
        let folder = group.as_ref().map(Self::folder).or(own).map_or_else(|| told.into(), Path::to_owned);
        Ok((folder, group))
    }

    pub(crate) fn folder(&self) -> &Path {
        self.claim.folder()
    }

    /// Removes a group of which no run could start.
    pub(crate) fn discard_if_empty(self) {
        let folder = self.folder().to_owned();
        let others =
            std::fs::read_dir(&folder).map(|entries| entries.flatten().filter(|entry| entry.file_name() != self.file).count());
        if matches!(others, Ok(0)) {
            // What cannot be removed does no harm. The error that ended the group is the one to tell.
            let _ = std::fs::remove_file(folder.join(self.file));
            if self.is_new {
                let _ = std::fs::remove_dir(folder);
            }
        }
    }
}

/// How a member's run ended.
pub(crate) enum Ended {
    Finished(Box<Summary>),
    /// It was paused, or a stop was asked for.
    Stopped,
}

/// Starts the run of `recipe` in `folder`, or goes on with it, until `epochs` are done.
pub(crate) fn go_on<'a>(
    folder: &Path,
    recipe: &Recipe,
    why: &str,
    epochs: u64,
    queue: &Queue,
    each: impl FnOnce(Run<'a>) -> Run<'a>,
) -> Result<Ended, Error> {
    let began = Instant::now();
    while !queue.is_one() && is_in_use(folder) && began.elapsed() < HELD {
        thread::sleep(LOOK);
    }
    let run = match folder.join(LAST).exists() {
        true => Run::resume(folder)?,
        false => Run::new(recipe.clone()).why(why).folder(folder),
    };
    let run = if epochs < recipe.train.epochs { run.pause_after(epochs) } else { run };
    match each(run.on_gpu(queue.local_rank())).run() {
        Ok(Outcome::Finished { summary, .. }) => Ok(Ended::Finished(summary)),
        Ok(Outcome::Stopped { .. }) | Err(Error::Stopped) => Ok(Ended::Stopped),
        Err(error) => Err(error),
    }
}

/// The file that makes a folder that of a group, if it is one.
pub fn group_file(folder: &Path) -> Option<PathBuf> {
    [crate::SEEDS, crate::SWEEP].map(|file| folder.join(file)).into_iter().find(|file| file.is_file())
}

/// Reads a file that has a recipe and one section more: its text, the recipe as a table, and that section, if it is there.
pub(crate) fn read_with(path: &Path, section: &str) -> Result<(String, Table, Option<Value>), Error> {
    let mut text = String::new();
    let read = striate_files::open(path)?.take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| refuse(path, format!("cannot be read: {error}")))?;
    let (table, value) = split(&text, path, section)?;
    Ok((text, table, value))
}

/// The same of a text.
pub(crate) fn split(text: &str, path: &Path, section: &str) -> Result<(Table, Option<Value>), Error> {
    let parse = || text.parse::<Table>().map_err(|error| error.message().to_owned());
    match contained(parse, |panic| format!("cannot be read: {panic}")) {
        Ok(mut table) => {
            let value = table.remove(section);
            Ok((table, value))
        }
        // A recipe's error says in which line.
        Err(reason) => Err(Recipe::parse(text, path).err().map_or_else(|| refuse(path, reason), Error::from)),
    }
}

/// The recipe that a table is; `path` is the file that errors name.
pub(crate) fn recipe_of(table: &Table, path: &Path) -> Result<Recipe, Error> {
    let text = toml::to_string(table).map_err(|error| refuse(path, error.to_string()))?;
    Ok(Recipe::parse(&text, path)?)
}

pub(crate) fn refuse(path: &Path, reason: String) -> Error {
    TrainError::Recipe { path: path.into(), reason }.into()
}
