//! Classifies uploads in a service of your own: one [`Classifier`], shared by all requests of an
//! axum server.
//!
//! `train_folder` makes a bundle to serve: `model.safetensors` in its run's folder. From the root
//! of the repository:
//!
//! ```console
//! $ cargo run --release -p striate --example serve -- model.safetensors 3000
//! listening on http://127.0.0.1:3000
//! $ curl --data-binary @rose.jpg http://127.0.0.1:3000/classify
//! {"top":[{"class":"rose","index":1,"probability":0.91},...],"unknown":false}
//! ```
//!
//! In a package of your own, it needs
//!
//! ```toml
//! [dependencies]
//! striate = { path = "striate/crates/striate" } # your clone
//! axum = "0.8"
//! serde_json = "1"
//! tokio = { version = "1", features = ["macros", "net", "rt-multi-thread", "signal"] }
//! ```
//!
//! Without a port the system chooses one. Ctrl-C ends the server after the requests that it is
//! working on.
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use std::env;
use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use striate::datasets::DecodeOptions;
use striate::{Classifier, ClassifierOptions, Prediction};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

const USAGE: &str = "usage: serve BUNDLE [PORT]";
/// A larger upload is refused before it is read to its end.
const MAX_BYTES: usize = 10 * 1024 * 1024;
/// A few bytes can be a picture of a billion pixels, so the pixels have a limit too.
const MAX_PIXELS: u64 = 25_000_000;

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Striate's errors are sentences that say what to do.
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    striate::keep_memory_warm();
    let mut args = env::args().skip(1);
    let bundle = args.next().ok_or(USAGE)?;
    let port = args.next().map_or(Ok(0), |port| port.parse())?;

    let mut options = ClassifierOptions::default();
    options.decode = DecodeOptions { max_pixels: MAX_PIXELS };
    let classifier = Arc::new(Classifier::open_with(bundle, options)?);

    let app = Router::new().route("/classify", post(classify)).layer(DefaultBodyLimit::max(MAX_BYTES)).with_state(classifier);
    // Only this machine can connect. Put a proxy in front before others may.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(ctrl_c()).await?;
    Ok(())
}

/// The request's body is the picture, in any format that Striate reads.
async fn classify(
    State(classifier): State<Arc<Classifier>>,
    picture: Result<Bytes, BytesRejection>,
) -> Result<Json<Prediction>, Refusal> {
    let picture = picture?;
    // A network computes for milliseconds or more. On a thread of its own it doesn't hold up other
    // requests.
    let prediction = spawn_blocking(move || classifier.classify(&*picture)).await;
    Ok(Json(prediction.map_err(|error| Refusal::failure(error.to_string()))??))
}

async fn ctrl_c() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        eprintln!("cannot wait for Ctrl-C: {error}");
        std::future::pending::<()>().await;
    }
}

/// Why there is no answer: a status and a sentence.
struct Refusal(StatusCode, String);

impl Refusal {
    fn failure(reason: String) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, reason)
    }
}

impl From<striate::Error> for Refusal {
    /// A picture that cannot be read is the client's mistake; anything else is the server's.
    fn from(error: striate::Error) -> Self {
        match error.is_failure() {
            true => Self::failure(error.to_string()),
            false => Self(StatusCode::BAD_REQUEST, error.to_string()),
        }
    }
}

impl From<BytesRejection> for Refusal {
    /// An upload that is too large, or that broke off.
    fn from(error: BytesRejection) -> Self {
        Self(error.status(), error.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        (status, Json(json!({ "error": error }))).into_response()
    }
}
