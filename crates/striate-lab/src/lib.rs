//! What the classic papers claim about convolutional networks, as experiments that give a verdict; and a look inside a network.
//!
//! A [`Claim`] says who claims what, in which form it can be measured, and what would refute it; [`run`] measures, and writes
//! raw numbers, a figure and an [`Outcome`] whose [`Verdict`] follows by a stated rule.
//!
//! ```
//! use striate_lab::{LabOptions, Verdict, find_claim, run};
//! # let folder = tempfile::tempdir()?;
//! # let out = folder.path().to_owned();
//! let claim = find_claim("one-by-one")?;
//! let outcome = run(claim, &LabOptions::quick(out))?;
//! assert_eq!(outcome.verdict, Verdict::Supported);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is absent on purpose: networks that no paper has, and training loops of its own.

mod chart;
mod claim;
mod claims;
pub mod confusion;
mod data;
mod error;
pub mod inspect;
mod lab;
mod lr_range;
mod page;
mod report;
mod run_page;
pub mod surface;
mod training;
mod trials;

pub use claim::{Claim, Finding, Scale, Setup, Table, claims, find_claim};
pub use data::data_page;
pub use error::LabError;
pub use lab::{DEFAULT_DATA, Lab, LabOptions, Outcome, run};
pub use lr_range::lr_range_svg;
pub use run_page::run_page;
pub use striate::{figure, verdict};
pub use training::{History, Training};
pub use verdict::{Check, Interval, Verdict};
