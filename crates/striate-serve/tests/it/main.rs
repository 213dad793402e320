//! The server from end to end, over loopback.
#![allow(clippy::unwrap_used)]
mod admin;
mod ends;
mod hostile;
mod limits;
mod page;
mod predict;
mod sandbox;
