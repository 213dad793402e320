//! How fast Striate's networks are: every network, in every way that it can be run, and others that do the same work beside it.
//!
//! A [`Case`] says what is measured, as plain data with an id. [`Work`] does it. Criterion samples it ([`sample()`]), or it takes
//! turns with peers ([`take_turns`]). Each measurement has a process of its own. [`Results`] are lines of JSON; a [`table`],
//! [`plots`] and a comparison with an earlier run ([`slower`]) are made of them.
//!
//! What is absent on purpose: Python environments and the building of peers, which `cargo xtask bench` brings.

mod busy;
mod case;
mod compare;
mod drive;
mod error;
mod gpu;
mod load;
mod memory;
mod pair;
mod peers;
mod plot;
mod product;
mod publish;
mod record;
mod report;
mod sample;
mod stats;
mod turns;
mod work;

pub use busy::{QUIET, busy_cores};
pub use case::{Case, Layout, Mode, default_set, full_set, select};
pub use compare::{Change, slower};
pub use drive::{Options, measure};
pub use error::BenchError;
pub use gpu::{GPU_SIDES, GpuOptions, gpu_script, gpu_select, gpu_set, measure_gpu};
pub use peers::{PEERS, Peer, Programs, choose};
pub use plot::plots;
pub use publish::publish;
pub use record::{Absent, OURS, Record, Results, Row, Run, Size, cores};
pub use report::table;
pub use sample::{Sample, bench, sample};
pub use stats::Spread;
pub use turns::{Answer, Request, Side, Turns, serve, take_turns};
pub use work::Work;
