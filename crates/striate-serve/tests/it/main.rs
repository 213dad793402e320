//! The server from end to end, over loopback.
#![allow(clippy::unwrap_used)]
mod admin;
mod clicks;
mod ends;
mod hostile;
mod limits;
mod page;
mod predict;
mod sandbox;
