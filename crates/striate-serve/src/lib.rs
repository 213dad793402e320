//! An HTTP server for trained networks.
//!
//! [`Server`] takes bundles and answers pictures with classes, in JSON. Pictures of several clients are computed together as they
//! come, and nobody waits for company unless you ask for that ([`Config::max_wait`]). What is too much is refused at once, with a
//! status and a sentence that says what to do. [`Handle::reload`] exchanges bundles without losing a request, and [`Handle::stop`]
//! finishes what was accepted.
//!
//! | address | answers |
//! |---|---|
//! | `POST /v1/models/NAME/predict` | classes of pictures: a picture's file, a form with several, or JSON with base64 |
//! | `GET /v1/models` | the networks |
//! | `GET /v1/models/NAME/network.svg` | a network drawn |
//! | `GET /` | a page to try it |
//! | `GET /docs`, `GET /openapi.json` | the description of all addresses |
//! | `GET /healthz`, `GET /readyz`, `GET /metrics` | the server's state |
//! | `POST /admin/reload` | reads the bundles again |
//!
//! What is absent on purpose: the terminal, signals, and the process. Whoever calls decides what ends the server and where log lines
//! go ([`log_as_json`] is one answer); each request is an event of `tracing` with the target `striate_serve::access`. No picture is
//! written or logged.

mod app;
mod batch;
mod body;
mod config;
mod decode;
mod error;
mod log;
mod metrics;
mod model;
mod predict;
mod problem;
mod routes;
mod secrets;
mod server;
mod slow;
mod tls;

pub use config::Config;
pub use error::ServeError;
pub use log::log_as_json;
pub use model::Served;
pub use secrets::{Keys, Secret};
pub use server::{Handle, Server, listen};
pub use tls::Tls;
