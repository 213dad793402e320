//! `POST /v1/models/NAME/predict`: pictures in, answers out.
use crate::app::App;
use crate::batch::{Answer, Job, Reply};
use crate::body::{self, Held};
use crate::model::{Explanation, Loaded, Model};
use crate::problem::Problem;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, Multipart, Path, Query, State};
use axum::http::{HeaderMap, Request, StatusCode, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};
use striate::datasets::{DecodeOptions, decode_image};
use striate::tch::Tensor;
use striate_torch::thread_width;
use tokio::sync::oneshot;
use utoipa::{IntoParams, ToSchema};

/// The header with which a client says how many seconds it waits for its answer.
pub(crate) const REQUEST_TIMEOUT: &str = "request-timeout";
/// JSON from this size on is parsed beside the requests of others.
const LARGE_JSON: usize = 64 * 1024;
/// A body that is read to its end even if it is refused.
const SHORT: usize = 32 * 1024;
/// What a picture has at most, if the task that has it decodes it: others wait meanwhile.
const QUICK_BYTES: usize = 16 * 1024;
const QUICK_PIXELS: u64 = 16 * 1024;
const MULTIPART: &str = "multipart/form-data";

/// What a request may ask for.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Asked {
    /// How many of the likeliest classes to answer with. If a picture can have several classes, all from the bundle's threshold on
    /// are answered instead.
    #[param(minimum = 1)]
    top: Option<usize>,
    /// Whether to answer where in the picture the likeliest class comes from.
    #[serde(default)]
    explain: bool,
}

/// Pictures as JSON: give one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pictures {
    /// The picture's file in base64, with or without the head of a `data:` address.
    image: Option<String>,
    /// Several of them.
    #[schema(min_items = 1)]
    images: Option<Vec<String>>,
}

/// A form whose fields are pictures' files, whatever their names.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the form, and multer reads it")]
pub(crate) struct Form {
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    image: Vec<u8>,
}

/// Answers in the order of the pictures.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Predictions {
    /// The network's name.
    model: String,
    /// How often bundles had been exchanged when this one was read.
    generation: u64,
    predictions: Vec<Prediction>,
}

/// The answer for one picture, or in a request with several its problem.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Prediction {
    Answered(Answered),
    Refused {
        /// Why this picture has no answer.
        problem: Problem,
    },
}

/// The answer for one picture.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answered {
    /// The likeliest classes, the likeliest first.
    top: Vec<Class>,
    /// Whether the picture is none of the classes, by the bundle's rule; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<bool>,
    times: Times,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explanation>,
}

/// A class and its probability.
#[derive(Debug, Serialize, ToSchema)]
struct Class {
    class: String,
    /// Its place among the network's outputs.
    index: usize,
    /// From 0 to 1.
    probability: f64,
}

/// Where the time went, in milliseconds.
#[derive(Debug, Serialize, ToSchema)]
struct Times {
    /// From the picture's bytes to the network's input.
    decode_ms: f64,
    /// From there until the network began.
    queue_ms: f64,
    /// The network, for the whole batch.
    compute_ms: f64,
    /// How many pictures were computed together.
    batch: usize,
}

/// Classify pictures
///
/// The body is a picture's file (JPEG, PNG, WebP, GIF, BMP, TIFF or PNM; its content says which), a form with several, or JSON
/// with base64. With several pictures, one that can't be read has its problem in its place.
#[utoipa::path(
    post,
    path = "/v1/models/{name}/predict",
    tag = "models",
    security((), ("key" = [])),
    params(
        ("name" = String, Path, description = "The network's name"),
        Asked,
        ("Request-Timeout" = Option<f64>, Header, exclusive_minimum = 0, description = "Seconds after which the answer is of no use; then there is none"),
    ),
    request_body(content(
        (Vec<u8> = "image/*"),
        (Vec<u8> = "application/octet-stream"),
        (Form = "multipart/form-data"),
        (Pictures = "application/json"),
    )),
    responses(
        (status = 200, description = "Answers in the order of the pictures", body = Predictions),
        (status = 400, description = "A malformed request", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No key, or a wrong one", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such network", body = Problem, content_type = "application/problem+json"),
        (status = 406, description = "The client takes no JSON", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body came too slowly", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too many bytes or pictures", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "A content type or encoding that is not read", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The picture can't be read", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The queue is full", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "The network failed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The server is overloaded or ends", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The answer would come too late", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn predict(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
    asked: Result<Query<Asked>, QueryRejection>,
    request: Request<Body>,
) -> Result<Json<Predictions>, Problem> {
    let received = Instant::now();
    let (Path(name), Query(asked)) = (name?, asked?);
    let model = app.model(&name)?;
    let (parts, body) = request.into_parts();
    accepts_json(&parts.headers)?;
    let form = Content::of(&parts.headers)?;
    let waits = waits_for(&parts.headers)?;
    let deadline = Deadline {
        at: received + waits.unwrap_or(app.config.request_time).min(app.config.request_time),
        is_asked: waits.is_some(),
    };
    let top = match asked.top {
        Some(0) => return Err(Problem::new(StatusCode::BAD_REQUEST, "top=0 leaves no answer: give 1 or more")),
        top => top.unwrap_or(app.config.classifier.top),
    };
    if model.places.available_permits() == 0 {
        // A short body is read over, so that its connection stays; a long one would be sent for nothing.
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_none_or(|length: usize| length > SHORT) {
            return Err(full(model).close());
        }
        body::read(&parts.headers, body, &app.config, &app.body_memory, deadline).await?;
        return Err(full(model));
    }
    let (bytes, held) = body::read(&parts.headers, body, &app.config, &app.body_memory, deadline).await?;
    let pictures = form.pictures(Request::from_parts(parts, Body::empty()), bytes).await?;
    let several = pictures.len() > 1;
    let loaded = model.current();
    if asked.explain && !loaded.can_explain() {
        let detail = "explain=true is not possible: the network has no feature maps, or the server was told to leave it out";
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    let wish = Wish { top, explain: asked.explain, deadline: deadline.at };
    let answers = submit(&app, model, &loaded, pictures, held, wish)?;
    let mut predictions = Vec::with_capacity(answers.len());
    for answer in answers {
        let answer = tokio::time::timeout_at(deadline.at.into(), answer).await.map_err(|_| deadline.missed())?;
        // A sender that is gone belonged to a picture that nobody answers any more.
        let answer = answer.unwrap_or_else(|_| Err(lost(deadline)));
        predictions.push(match answer {
            Ok(answer) => Prediction::Answered(answered(&loaded, answer)),
            Err(problem) if several && problem.status() == StatusCode::UNPROCESSABLE_ENTITY => Prediction::Refused { problem },
            Err(problem) => return Err(problem),
        });
    }
    Ok(Json(Predictions { model: name, generation: loaded.info.generation, predictions }))
}

/// When an answer is of no use any more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// Whether the client chose it.
    is_asked: bool,
}

impl Deadline {
    /// Why there is no answer.
    pub(crate) fn missed(self) -> Problem {
        let detail = match self.is_asked {
            true => "there was no answer within the seconds of Request-Timeout: allow more, or send a smaller picture",
            false => "there was no answer in time: try again when the server has less to do",
        };
        Problem::new(StatusCode::GATEWAY_TIMEOUT, detail)
    }
}

/// What is asked of each picture.
#[derive(Debug, Clone, Copy)]
struct Wish {
    top: usize,
    explain: bool,
    deadline: Instant,
}

/// Puts all pictures into the network's queue, or none.
fn submit(
    app: &App,
    model: &Model,
    loaded: &Arc<Loaded>,
    pictures: Vec<Bytes>,
    held: Held,
    Wish { top, explain, deadline }: Wish,
) -> Result<Vec<oneshot::Receiver<Result<Answer, Problem>>>, Problem> {
    let count = u32::try_from(pictures.len()).unwrap_or(u32::MAX);
    if pictures.len() > model.max_waiting() {
        let detail = format!("the request has {count} pictures: send at most {} in one", model.max_waiting());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let mut places = Arc::clone(&model.places).try_acquire_many_owned(count).map_err(|_| full(model))?;
    let held = Arc::new(held);
    let mut answers = Vec::with_capacity(pictures.len());
    let is_quick = count == 1 && loaded.is_light && !explain && model.queue.max_wait().is_zero();
    for bytes in pictures {
        let Some(place) = places.split(1) else { break };
        let (answer, receiver) = oneshot::channel();
        answers.push(receiver);
        let (reply, loaded, start) = (Reply { answer, place }, Arc::clone(loaded), Instant::now());
        let decoded = if is_quick { decode_here(app, &loaded, &bytes) } else { None };
        let job = move |loaded, input, start, reply| {
            let since = Instant::now();
            Job { input, loaded, top, explain, decode: since - start, since, deadline, reply }
        };
        if let Some(input) = decoded {
            model.queue.push_here(job(loaded, input, start, reply));
            continue;
        }
        let (queue, held) = (Arc::clone(&model.queue), Arc::clone(&held));
        app.decoders.run(bytes.len(), move || {
            let start = Instant::now();
            if reply.answer.is_closed() || deadline <= start {
                return;
            }
            let input = loaded.classifier.input(&bytes[..]);
            drop((bytes, held));
            match input {
                Ok(input) => queue.push(job(loaded, input, start, reply)),
                Err(error) => reply.send(Err(error.into())),
            }
        });
    }
    Ok(answers)
}

/// Decodes a small picture that is sound, which takes less than handing it to another thread.
fn decode_here(app: &App, loaded: &Loaded, bytes: &[u8]) -> Option<Tensor> {
    if bytes.len() > QUICK_BYTES {
        return None;
    }
    let _width = thread_width(1);
    let max_pixels = app.config.classifier.decode.max_pixels.min(QUICK_PIXELS);
    // A larger picture, and the reason why one can't be read, are the business of threads that may take their time.
    decode_image(bytes, loaded.classifier.preprocess(), &DecodeOptions { max_pixels }).ok()
}

fn full(model: &Model) -> Problem {
    let detail = "the queue is full: try again after the seconds of Retry-After";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(model.wait())
}

/// Why an answer will not come: its time had passed before it was computed, or a thread failed.
fn lost(deadline: Deadline) -> Problem {
    match deadline.at <= Instant::now() {
        true => deadline.missed(),
        false => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the picture was lost to a failure: send it again"),
    }
}

fn answered(loaded: &Loaded, answer: Answer) -> Answered {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let class = |striate::Answer { class, index, probability }| Class { class, index, probability };
    Answered {
        top: answer.prediction.top.into_iter().map(class).collect(),
        unknown: loaded.info.can_be_unknown.then_some(answer.prediction.unknown),
        times: Times {
            decode_ms: milliseconds(answer.decode),
            queue_ms: milliseconds(answer.queue),
            compute_ms: milliseconds(answer.compute),
            batch: answer.batch,
        },
        explanation: answer.explanation,
    }
}

/// In which form pictures come.
enum Content {
    Picture,
    Form,
    Json,
}

impl Content {
    /// Nobody asks clients which kind of picture it is. What is sent as a plain form by habit, as by curl, is a picture too.
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let refused = |detail: &str| Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).close());
        if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return refused("the body is compressed once more: send it without Content-Encoding");
        }
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Self::Picture) };
        let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/json" => Ok(Self::Json),
            MULTIPART => Ok(Self::Form),
            "application/octet-stream" | "application/x-www-form-urlencoded" => Ok(Self::Picture),
            image if image.starts_with("image/") => Ok(Self::Picture),
            _ => refused(
                "this content type is not read: send a picture as image/*, forms as multipart/form-data, or application/json",
            ),
        }
    }

    /// The pictures' files. `request` has the body's headers.
    async fn pictures(self, request: Request<Body>, bytes: Bytes) -> Result<Vec<Bytes>, Problem> {
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
        let pictures = match self {
            Self::Picture => vec![bytes],
            Self::Json if bytes.len() < LARGE_JSON => of_json(&bytes).map_err(bad)?,
            Self::Json => {
                let parsed = tokio::task::spawn_blocking(move || of_json(&bytes)).await;
                parsed.unwrap_or_else(|_| Err("the JSON can't be read".to_owned())).map_err(bad)?
            }
            Self::Form => {
                let malformed = |reason: String| {
                    bad(format!("the form can't be read ({reason}): send multipart/form-data as RFC 7578 has it"))
                };
                let request = request.map(|_| Body::from(bytes));
                let mut form = Multipart::from_request(request, &()).await.map_err(|error| malformed(error.body_text()))?;
                let mut pictures = Vec::new();
                while let Some(field) = form.next_field().await.map_err(|error| malformed(error.body_text()))? {
                    pictures.push(field.bytes().await.map_err(|error| malformed(error.body_text()))?);
                }
                pictures
            }
        };
        match pictures.iter().all(Bytes::is_empty) {
            true => Err(bad("there is no picture in the body: send its file".to_owned())),
            false => Ok(pictures),
        }
    }
}

fn of_json(bytes: &[u8]) -> Result<Vec<Bytes>, String> {
    const WANTED: &str = r#"send {"image": "BASE64"} or {"images": ["BASE64", ...]}"#;
    let pictures: Pictures =
        serde_json::from_slice(bytes).map_err(|error| format!("the JSON can't be read ({error}): {WANTED}"))?;
    let pictures = match pictures {
        Pictures { image: Some(image), images: None } => vec![image],
        Pictures { image: None, images: Some(images) } => images,
        _ => return Err(format!("the JSON has both image and images, or neither: {WANTED}")),
    };
    let decode = |(number, text): (usize, &String)| {
        let base64 =
            text.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")).map_or(text.as_str(), |(_, base64)| base64);
        let bytes =
            BASE64_STANDARD.decode(base64.trim()).map_err(|error| format!("picture {number} is not in base64: {error}"))?;
        Ok(Bytes::from(bytes))
    };
    (1..).zip(&pictures).map(decode).collect()
}

/// Refuses clients that want nothing of what there is.
fn accepts_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kinds = headers.get_all(header::ACCEPT).iter().flat_map(|value| value.to_str().unwrap_or("*/*").split(','));
    let mut kinds =
        kinds.map(|kind| kind.split(';').next().unwrap_or_default().trim()).filter(|kind| !kind.is_empty()).peekable();
    let fits = |kind: &str| matches!(kind.to_ascii_lowercase().as_str(), "*/*" | "application/*" | "application/json");
    match kinds.peek().is_none() || kinds.any(fits) {
        true => Ok(()),
        false => Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "answers are JSON: accept application/json").close()),
    }
}

/// How long the client waits, if it says so.
fn waits_for(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get(REQUEST_TIMEOUT) else { return Ok(None) };
    let seconds = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|seconds: &f64| *seconds > 0.0);
    match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(waits) => Ok(Some(waits)),
        None => {
            Err(Problem::new(StatusCode::BAD_REQUEST, "Request-Timeout is no number of seconds above 0, such as 0.25").close())
        }
    }
}
