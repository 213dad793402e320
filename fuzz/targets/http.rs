#![no_main]
//! Bodies of requests to the server. The first byte chooses what they are said to be.
use axum::body::Body;
use axum::http::{Request, header::CONTENT_TYPE};
use std::{sync::LazyLock, time::Duration};
use striate_datasets::{Fit, Normalise, Preprocess};
use striate_graph::{InitOptions, Network};
use striate_models::{Bundle, BundleInfo, find};
use striate_serve::{Config, Served, Server};
use tower::ServiceExt;

const TYPES: [&str; 4] = ["image/png", "application/json", "multipart/form-data; boundary=b", "application/octet-stream"];

/// A server of a small network, and what runs it.
static SERVER: LazyLock<Option<(Server, tokio::runtime::Runtime)>> = LazyLock::new(|| {
    let model = find("lenet5").ok()?.model(&[]).ok()?;
    let network = Network::new(model.graph().ok()?, &InitOptions::default()).ok()?;
    let preprocess = Preprocess::new([1, 8, 8], [1, 32, 32], Fit::Resize, Normalise::identity()).ok()?;
    let names: Vec<String> = (0..10).map(|class| class.to_string()).collect();
    let info = BundleInfo::of_model(&model, &names, Some(preprocess)).ok()?;
    let file = tempfile::Builder::new().prefix("lenet5").suffix(".safetensors").tempfile().ok()?;
    Bundle { info, state: network.state() }.write(file.path()).ok()?;
    let mut config = Config::default();
    config.request_time = Duration::from_secs(4);
    let server = Server::new(vec![Served::named("m", file.path()).ok()?], config).ok()?;
    Some((server, tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?))
});

fn answer(bytes: &[u8]) -> Option<()> {
    let (server, runtime) = SERVER.as_ref()?;
    let (first, body) = bytes.split_first()?;
    let kind = TYPES[usize::from(*first) % TYPES.len()];
    let request = Request::post("/v1/models/m/predict").header(CONTENT_TYPE, kind).body(Body::from(body.to_vec())).ok()?;
    let answer = runtime.block_on(server.router().oneshot(request)).ok()?;
    assert!(answer.status() != 500 && answer.status() != 504, "{}", answer.status());
    Some(())
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| striate_fuzz::run(|bytes| _ = answer(bytes), bytes));
