//! Pictures in, answers out.
use crate::sandbox::{CLASSES, Sandbox, bundle, picture};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::time::Duration;
use striate_serve::{Config, Served, Server, listen};

const PREDICT: &str = "/v1/models/tints/predict";

#[track_caller]
fn close(got: &Value, expected: f64) {
    assert!((got.as_f64().unwrap() - expected).abs() < 1e-6, "{got}, not {expected}");
}

#[test]
fn a_picture_has_the_answer_that_the_formula_says() {
    let server = Sandbox::plain();
    let answer = server.predict(&picture([51, 255, 0]));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
    let answer = answer.json();
    assert_eq!((&answer["model"], &answer["generation"]), (&json!("tints"), &json!(0)));
    // Every pixel is the same, so the logits are ten times its channels over 255: 2, 10 and 0.
    let sum = 2_f64.exp() + 10_f64.exp() + 1.0;
    let prediction = &answer["predictions"][0];
    let expected = [("green", 1, 10_f64.exp() / sum), ("red", 0, 2_f64.exp() / sum), ("blue", 2, 1.0 / sum)];
    assert_eq!(prediction["top"].as_array().unwrap().len(), 3);
    for (got, (class, index, probability)) in prediction["top"].as_array().unwrap().iter().zip(expected) {
        assert_eq!((&got["class"], &got["index"]), (&json!(class), &json!(index)));
        close(&got["probability"], probability);
    }
    assert_eq!(prediction["unknown"], false);
    assert!(prediction.get("explanation").is_none());
    for time in ["decode_ms", "queue_ms", "compute_ms"] {
        assert!((0.0..30_000.0).contains(&prediction["times"][time].as_f64().unwrap()), "{prediction}");
    }
    // Three logits of 0 have an energy of ln 3, which is below the bundle's 2.
    assert_eq!(server.predict(&picture([0; 3])).json()["predictions"][0]["unknown"], true);
}

#[test]
fn pictures_come_as_a_body_a_form_or_json() {
    let server = Sandbox::plain();
    let [red, blue] = [picture([255, 0, 0]), picture([0, 0, 255])];
    for kind in ["image/png", "image/jpeg; q=1", "application/octet-stream", "application/x-www-form-urlencoded", "Image/PNG"] {
        assert_eq!(server.post(PREDICT, &[("content-type", kind)], &red).class(), "red", "{kind}");
    }
    assert_eq!(server.post(PREDICT, &[], &blue).class(), "blue");
    let mut chunked =
        format!("POST {PREDICT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n").into_bytes();
    for chunk in blue.chunks(50) {
        chunked.extend(format!("{:x}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()).chain(*b"\r\n"));
    }
    let chunked = server.raw(&[&chunked[..], b"0\r\n\r\n"].concat());
    assert!(chunked.starts_with("HTTP/1.1 200 OK\r\n") && chunked.contains(r#""top":[{"class":"blue""#), "{chunked}");
    let classes = |kind: &str, body: &[u8]| {
        let answer = server.post(&format!("{PREDICT}?top=1"), &[("content-type", kind)], body).json();
        let tops =
            answer["predictions"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().map(|prediction| &prediction["top"]);
        tops.map(|top| top.as_array().unwrap().iter().map(|class| class["class"].as_str().unwrap()).collect::<String>())
            .collect::<Vec<_>>()
    };
    let [red64, blue64] = [&red, &blue].map(|bytes| BASE64_STANDARD.encode(bytes));
    assert_eq!(classes("application/json", json!({ "image": red64 }).to_string().as_bytes()), ["red"]);
    let several = json!({ "images": [blue64, format!("data:image/png;base64,{red64}"), blue64] });
    assert_eq!(classes("application/json; charset=utf-8", several.to_string().as_bytes()), ["blue", "red", "blue"]);
    assert_eq!(classes("multipart/form-data; boundary=XX", &form(&[&red, &blue])), ["red", "blue"]);
}

/// A form of these files with the boundary XX.
pub(crate) fn form(files: &[&[u8]]) -> Vec<u8> {
    let mut form = Vec::new();
    for file in files {
        form.extend(b"--XX\r\ncontent-disposition: form-data; name=\"picture\"; filename=\"a.png\"\r\n\r\n");
        form.extend(*file);
        form.extend(b"\r\n");
    }
    form.extend(b"--XX--\r\n");
    form
}

#[test]
fn of_several_pictures_a_bad_one_leaves_the_others_their_answers() {
    let server = Sandbox::plain();
    // It has more bytes than axum's own limit allows.
    let bad = vec![b'x'; 3_000_000];
    let files: [&[u8]; 2] = [&bad, &picture([0, 255, 0])];
    let answer = server.post(PREDICT, &[("content-type", "multipart/form-data; boundary=XX")], &form(&files));
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!(answer["predictions"][0]["problem"]["status"], 422);
    assert_eq!(answer["predictions"][1]["top"][0]["class"], "green");
    let alone = server.post(PREDICT, &[("content-type", "multipart/form-data; boundary=XX")], &form(&[b"no picture"]));
    assert_eq!(alone.problem(422), answer["predictions"][0]["problem"]["detail"].as_str().unwrap());
}

/// A route, headers and a body; the status of the answer and a part of its sentence.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Vec<u8>, u16, &'a str);

#[test]
fn a_bad_request_has_its_status_and_a_sentence() {
    let server = Sandbox::new(|config, _| {
        config.max_body = 4000;
        config.queue = 3;
        config.classifier.decode.max_pixels = 1000;
    });
    let good = picture([255, 0, 0]);
    let large = vec![0; 4001];
    let json = |text: &str| text.as_bytes().to_vec();
    let (png, javascript) = (("content-type", "image/png"), ("content-type", "application/json"));
    let form_of = |count: usize| form(&vec![&good[..]; count]);
    let multipart = ("content-type", "multipart/form-data; boundary=XX");
    let read = r#"send {"image": "BASE64"} or {"images": ["BASE64", ...]}"#;
    let cases: [Case<'_>; 22] = [
        ("/v1/models/tint/predict", &[png], good.clone(), 404, "there is no network of this name: there is tints"),
        ("/v1/models/%FF/predict", &[png], good.clone(), 400, "see /v1/models for the names"),
        ("/nowhere", &[], Vec::new(), 404, "there is nothing at this address: see /docs for those that there are"),
        ("/v1/models", &[], Vec::new(), 405, "this address takes another method: see Allow, or /docs"),
        (&format!("{PREDICT}?top=0"), &[png], good.clone(), 400, "top=0 leaves no answer: give 1 or more"),
        (&format!("{PREDICT}?top=x"), &[png], good.clone(), 400, "(top: invalid digit found in string): see /docs"),
        (&format!("{PREDICT}?tpo=1"), &[png], good.clone(), 400, "unknown field `tpo`"),
        (PREDICT, &[png, ("accept", "text/html")], good.clone(), 406, "answers are JSON: accept application/json"),
        (
            PREDICT,
            &[png, ("request-timeout", "soon")],
            good.clone(),
            400,
            "Request-Timeout is no number of seconds above 0, such as 0.25",
        ),
        (PREDICT, &[png, ("request-timeout", "-1")], good.clone(), 400, "Request-Timeout is no number of seconds"),
        (PREDICT, &[png], large, 413, "the body is larger than 4000 bytes: send a smaller picture, or fewer in one request"),
        (PREDICT, &[multipart], form_of(4), 413, "the request has 4 pictures: send at most 3 in one"),
        (
            PREDICT,
            &[("content-type", "text/plain")],
            good.clone(),
            415,
            "this content type is not read: send a picture as image/*",
        ),
        (PREDICT, &[png, ("content-encoding", "gzip")], good.clone(), 415, "send it without Content-Encoding"),
        (PREDICT, &[png], Vec::new(), 400, "there is no picture in the body: send its file"),
        (PREDICT, &[png], b"no picture".to_vec(), 422, "JPEG, PNG, WebP"),
        (PREDICT, &[png], good[..good.len() / 2].to_vec(), 422, "it is cut off"),
        (PREDICT, &[png], crate::hostile::large_picture(), 422, "it has 32x32 pixels, more than the limit of 1000"),
        (PREDICT, &[javascript], json("{"), 400, read),
        (PREDICT, &[javascript], json("{}"), 400, "the JSON has both image and images, or neither"),
        (PREDICT, &[javascript], json(r#"{"images": ["AAAA", "!"]}"#), 400, "picture 2 is not in base64"),
        (PREDICT, &[("content-type", "multipart/form-data")], form_of(1), 400, "the form can't be read"),
    ];
    for (route, headers, body, status, detail) in cases {
        let told = server.post(route, headers, &body).problem(status);
        assert!(told.contains(detail), "{route} {headers:?}: {told}");
        assert_eq!(server.predict(&good).class(), "red");
    }
    assert_eq!(server.post("/v1/models", &[], b"").header("allow"), Some("GET,HEAD"));
}

#[test]
fn networks_say_what_they_are() {
    let server = Sandbox::plain();
    let models = server.get("/v1/models").json();
    let expected = json!([{
        "name": "tints", "classes": CLASSES, "input": [3, 16, 16], "precision": "float32", "multi_label": false,
        // 3 x 3 weights of each of the two layers.
        "can_be_unknown": true, "can_explain": true, "parameters": 18, "metrics": {}, "generation": 0,
    }]);
    assert_eq!(models["models"], expected);
    let svg = server.get("/v1/models/tints/network.svg");
    assert_eq!(svg.header("content-type"), Some("image/svg+xml"));
    assert!(svg.text.starts_with("<svg ") && svg.text.contains("avgpool"), "{}", svg.text);
    assert!(server.get("/v1/models/x/network.svg").problem(404).contains("there is tints"));
    assert_eq!((server.get("/healthz").text, server.get("/readyz").text), ("alive\n".to_owned(), "ready\n".to_owned()));
}

#[test]
fn an_answer_is_explained_if_that_is_asked_for() {
    let server = Sandbox::plain();
    let explain = format!("{PREDICT}?explain=true&top=1");
    let answer = server.post(&explain, &[], &picture([255, 0, 0])).json();
    let explanation = &answer["predictions"][0]["explanation"];
    assert_eq!((&explanation["class"], &explanation["layer"]), (&json!("red"), &json!("conv")), "{answer}");
    let png = BASE64_STANDARD.decode(explanation["png"].as_str().unwrap()).unwrap();
    let map = striate::datasets::image::load_from_memory(&png).unwrap().to_rgb8();
    // The network's 16 pixels, each repeated 14 times; the whole picture speaks for red, so all of it is.
    assert_eq!(map.dimensions(), (224, 224));
    assert!(map.pixels().all(|pixel| pixel[0] > 150 && pixel[2] < 80), "{:?}", map.get_pixel(0, 0));
    let without = Sandbox::new(|config, _| config.explain = false);
    assert!(without.post(&explain, &[], &picture([255, 0, 0])).problem(400).contains("explain=true is not possible"));
    assert_eq!(without.get("/v1/models").json()["models"][0]["can_explain"], false);
}

#[test]
fn pictures_that_come_together_are_computed_together() {
    let server = Sandbox::new(|config, _| {
        config.max_wait = Duration::from_secs(10);
        config.max_batch = 4;
    });
    // Four of them fill a batch, so nobody waits for the ten seconds to pass.
    let [red, blue] = [picture([255, 0, 0]), picture([0, 0, 255])];
    let answer =
        server.post(PREDICT, &[("content-type", "multipart/form-data; boundary=XX")], &form(&[&red, &blue, &blue, &red])).json();
    let predictions = answer["predictions"].as_array().unwrap();
    assert!(predictions.iter().all(|prediction| prediction["times"]["batch"] == 4), "{answer}");
    let metrics = server.get("/metrics");
    assert_eq!(metrics.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    for line in [
        "striate_pictures_total{model=\"tints\"} 4",
        "striate_batch_pictures_sum{model=\"tints\"} 4.0",
        "striate_batch_pictures_count{model=\"tints\"} 1",
        "striate_waiting_pictures{model=\"tints\"} 0",
        "striate_requests_total{route=\"/v1/models/{name}/predict\",status=\"200\"} 1",
    ] {
        assert!(metrics.text.lines().any(|other| other == line), "{line} in {}", metrics.text);
    }
    assert!(metrics.text.ends_with("# EOF\n"));
}

#[test]
fn what_cannot_be_served_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    bundle(CLASSES, 1.0).write(&path("a.safetensors")).unwrap();
    std::fs::write(path("bad.safetensors"), "x").unwrap();
    let start = |files: &[&str], config: Config| {
        let bundles = files.iter().map(|file| Served::new(path(file)).unwrap()).collect();
        let error = Server::new(bundles, config).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    };
    let none = || Config::default();
    assert_eq!(start(&[], none()), "there is nothing to serve: name a bundle");
    assert_eq!(
        start(&["a.safetensors", "bad.safetensors", "a.safetensors"], none()),
        "two bundles are named a: give one of them another name"
    );
    assert!(start(&["bad.safetensors"], none()).starts_with("bad: "));
    assert!(start(&["missing.safetensors"], none()).contains("missing.safetensors"));
    let mut config = none();
    config.max_batch = 0;
    assert_eq!(start(&["a.safetensors"], config), "max_batch = 0 must be 1 or larger, and fit 32 bits");
    let taken = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = taken.local_addr().unwrap();
    let error = listen(address).unwrap_err().to_string();
    assert_eq!(error, format!("cannot listen on {address}: another program uses this port: choose another one"));
}
