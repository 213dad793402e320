//! What a survey says, as plain data.

use serde::Serialize;
use std::path::PathBuf;

/// What a [`survey`](crate::survey) found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Survey {
    /// The classes' names, of all parts.
    pub classes: Vec<String>,
    /// The parts, such as `train` and `val`.
    pub parts: Vec<PartCounts>,
    /// How large the pictures are. None if no picture can be read.
    pub sizes: Option<Sizes>,
    /// How the pictures hold their colours, the most frequent first.
    pub colours: Vec<Count>,
    /// The formats of their files, the most frequent first; empty for a dataset in memory.
    pub formats: Vec<Count>,
    /// What is wrong or may be wrong: errors first, then notes, each kind at most once.
    pub findings: Vec<Finding>,
}

/// How many pictures a part has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartCounts {
    /// The part's name.
    pub part: String,
    /// Pictures of each class, in the order of [`Survey::classes`].
    pub pictures: Vec<usize>,
}

/// How many there are of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    /// What it is.
    pub what: String,
    /// How many.
    pub pictures: usize,
}

/// Widths and heights in pixels; pictures are ordered by their areas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Of the smallest picture.
    pub smallest: [u32; 2],
    /// Of that in the middle.
    pub median: [u32; 2],
    /// Of the largest.
    pub largest: [u32; 2],
}

/// What can be wrong with a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Problem {
    /// A file is damaged, cut off, or no picture.
    Unreadable,
    /// The same file lies in several classes.
    SameInClasses,
    /// The same file lies in several parts.
    SameInParts,
    /// A part has no picture of a class.
    MissingClass,
    /// Files that a training run would not use, such as pictures of a format that is not read.
    LeftOut,
    /// Pictures of several classes look alike.
    AlikeInClasses,
    /// Pictures of several parts look alike.
    AlikeInParts,
    /// A network finds the label of a picture unlikely.
    Doubtful,
    /// The same file lies in one class several times.
    Same,
    /// Pictures of one class look alike.
    Alike,
    /// The dataset has one class only.
    OneClass,
    /// A class has many times as many pictures as another.
    Imbalance,
    /// Names of classes differ in capital letters only.
    AlikeClasses,
    /// A picture is far wider than high, or higher than wide.
    Proportions,
    /// A picture's colours are held otherwise than most.
    Colours,
    /// A file's name says another format than its content.
    Extension,
    /// A file is named like a copy, as in `rose (1).jpg`.
    Copy,
    /// Names of files differ only in capital letters or in how accents are encoded.
    Clash,
    /// A system or a program left the file behind; it is ignored.
    Ignored,
}

impl Problem {
    /// Whether it makes training fail or its figures wrong; otherwise it is for you to judge.
    pub fn is_error(self) -> bool {
        matches!(self, Self::Unreadable | Self::SameInClasses | Self::SameInParts | Self::MissingClass | Self::LeftOut)
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Unreadable => "fix the file or remove it; training stops at it, unless it skips bad pictures",
            Self::SameInClasses => "keep the one with the right label",
            Self::SameInParts => "keep one, or a network is judged by pictures that it learned",
            Self::MissingClass => "add pictures, or remove the class",
            Self::LeftOut => "convert, rename, move or remove what is not used",
            Self::AlikeInClasses => "look at each: if it is one picture, a label is wrong",
            Self::AlikeInParts => "look at each: if it is one picture, keep one",
            Self::Doubtful => "look at each: its label may be wrong",
            Self::Same | Self::Alike => "keep one of each, if a picture should not count several times",
            Self::OneClass => "add another class",
            Self::Imbalance => "add pictures, or draw all classes as often in training",
            Self::AlikeClasses => "merge or rename them",
            Self::Proportions => "look at each: a square crop cuts most of it off",
            Self::Colours => "check that this is meant",
            Self::Extension => "rename it if other programs read it; Striate looks at the content",
            Self::Copy => "look at each: it may be an edited copy",
            Self::Clash => "rename one before you copy them to another system",
            Self::Ignored => "leave it or remove it",
        }
    }
}

/// One kind of problem, with the pictures that have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The kind.
    pub problem: Problem,
    /// Whether it is an [error](Problem::is_error).
    pub error: bool,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do, in one line.
    pub advice: &'static str,
    /// The pictures: those of a group are the same, or look alike.
    pub groups: Vec<Vec<Seen>>,
}

impl Finding {
    /// A problem with the groups that have it; `message` is told how many there are.
    pub fn new(problem: Problem, message: impl Into<String>, groups: Vec<Vec<Seen>>) -> Self {
        Self { problem, error: problem.is_error(), message: message.into(), advice: problem.advice(), groups }
    }
}

/// A picture, or a file beside the pictures, that has a problem.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seen {
    /// The part that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Its place among the examples of its part; none for a file that is no example.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<usize>,
    /// The path of its file, or its number in a dataset in memory.
    #[serde(with = "striate_files::path")]
    pub place: PathBuf,
    /// Its class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// More about it, such as why it cannot be read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Survey {
    /// Whether there is an error among the findings.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.error)
    }

    /// Pictures of all parts.
    pub fn len(&self) -> usize {
        self.parts.iter().flat_map(|part| &part.pictures).sum()
    }

    /// Whether there is no picture.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a finding in its place: errors first, and the worst first among these and among the notes.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
        self.findings.sort_by_key(|finding| finding.problem);
    }
}
