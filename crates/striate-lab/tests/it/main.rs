//! What is seen inside networks equals what others compute, for every family of the registry.
#![allow(clippy::unwrap_used)]

mod cam;
mod dense;
mod zoo;
