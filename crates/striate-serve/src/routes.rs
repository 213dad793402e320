//! The addresses.
use crate::app::App;
use crate::metrics::OPEN_METRICS;
use crate::model::ModelInfo;
use crate::predict;
use crate::problem::Problem;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, MatchedPath, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Nothing but what this server sends, and no page may frame it. Pictures that you choose are `blob:` addresses.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The peer of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Whose key a request had.
#[derive(Debug, Clone)]
struct Caller(String);

/// All routes, and their description.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let behind_keys = OpenApiRouter::new()
        .routes(routes!(predict::predict))
        .routes(routes!(models))
        .routes(routes!(network))
        .routes(routes!(metrics))
        .route_layer(from_fn_with_state(Arc::clone(app), check_key));
    let open = OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(reload));
    let described = OpenApiRouter::with_openapi(description()).merge(behind_keys).merge(open);
    let (router, api) = described.split_for_parts();
    let api = api.to_json().unwrap_or_default();
    let page = |kind: &'static str, text: &'static str| get(move || async move { ([(header::CONTENT_TYPE, kind)], text) });
    const HTML: &str = "text/html; charset=utf-8";
    const CSS: &str = "text/css; charset=utf-8";
    const JS: &str = "text/javascript; charset=utf-8";
    router
        .route("/openapi.json", get(move || async move { ([(header::CONTENT_TYPE, "application/json")], api) }))
        .route("/", page(HTML, include_str!("../page/index.html")))
        .route("/page.js", page(JS, include_str!("../page/page.js")))
        .route("/page.css", page(CSS, include_str!("../page/page.css")))
        .route("/docs", page(HTML, include_str!("../page/docs.html")))
        .route("/docs.js", page(JS, include_str!("../page/docs.js")))
        .method_not_allowed_fallback(wrong_method)
        .fallback(nowhere)
        // Bodies are read within limits of ours.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(Arc::clone(app), observed))
        .with_state(Arc::clone(app))
}

fn description() -> OpenApi {
    let about = "Classifies pictures with networks that were trained by Striate. Errors are problems as in RFC 9457.";
    let info = InfoBuilder::new().title("Striate").version(env!("CARGO_PKG_VERSION")).description(Some(about));
    let key = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let components = ComponentsBuilder::new().security_scheme("key", key).build();
    OpenApiBuilder::new().info(info.build()).components(Some(components)).build()
}

/// The networks that can be asked.
#[derive(Debug, Serialize, ToSchema)]
struct Models {
    models: Vec<ModelInfo>,
}

/// List the networks
#[utoipa::path(get, path = "/v1/models", tag = "models", security((), ("key" = [])), responses((status = 200, description = "The networks in the order of their names", body = Models)))]
async fn models(State(app): State<Arc<App>>) -> Json<Models> {
    Json(Models { models: app.models().map(|model| model.current().info.clone()).collect() })
}

/// Draw a network
#[utoipa::path(
    get,
    path = "/v1/models/{name}/network.svg",
    tag = "models",
    security((), ("key" = [])),
    params(("name" = String, Path, description = "The network's name")),
    responses(
        (status = 200, description = "The layers from top to bottom", body = String, content_type = "image/svg+xml"),
        (status = 404, description = "No such network", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn network(State(app): State<Arc<App>>, name: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let Path(name) = name?;
    let svg = app.model(&name)?.current().svg.clone();
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response())
}

/// Whether the process lives
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, description = "It does", body = String, content_type = "text/plain")))]
async fn healthz() -> &'static str {
    "alive\n"
}

/// Whether to send requests
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    responses(
        (status = 200, description = "Send them", body = String, content_type = "text/plain"),
        (status = 503, description = "The server ends", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    match app.is_stopping() {
        true => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server ends: send requests to another one")),
        false => Ok("ready\n"),
    }
}

/// Figures for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    security((), ("key" = [])),
    responses((status = 200, description = "OpenMetrics' text", body = String, content_type = "application/openmetrics-text"))
)]
async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    for model in app.models() {
        model.metrics.waiting.set(i64::try_from(model.waiting()).unwrap_or(i64::MAX));
    }
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the figures can't be written: see the server's log");
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], app.metrics.text().map_err(failed)?).into_response())
}

/// What came of an exchange.
#[derive(Debug, Serialize, ToSchema)]
struct Exchanged {
    /// How often bundles have been exchanged since the server started.
    generation: u64,
}

/// Read the bundles again
///
/// All are exchanged, or none. Requests go on meanwhile.
#[utoipa::path(
    post,
    path = "/admin/reload",
    tag = "operation",
    security(("key" = [])),
    responses(
        (status = 200, description = "All bundles were exchanged", body = Exchanged),
        (status = 401, description = "No token, or a wrong one", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The server has no token", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A bad bundle: the former ones go on", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn reload(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<Exchanged>, Problem> {
    let Some(token) = &app.config.admin_token else {
        return Err(Problem::new(StatusCode::FORBIDDEN, "the server was started without an administrator's token: give it one"));
    };
    if !presented(&headers).is_some_and(|secret| token.is(secret)) {
        return Err(unauthorized("this takes the administrator's token: send Authorization: Bearer TOKEN"));
    }
    let reloaded = tokio::task::spawn_blocking(move || app.reload()).await;
    let failed = |_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the exchange failed, the former bundles go on: see the server's log")
    };
    let refused = |error| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("no bundle was exchanged, the former ones go on: {error}"))
    };
    Ok(Json(Exchanged { generation: reloaded.map_err(failed)?.map_err(refused)? }))
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail).with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// The secret that a request has.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, secret) = headers.get(header::AUTHORIZATION)?.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(secret)
}

async fn check_key(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(keys) = &app.config.keys else { return next.run(request).await };
    let Some(name) = presented(request.headers()).and_then(|secret| keys.name_of(secret)) else {
        return unauthorized("this takes a key: send Authorization: Bearer KEY").close().into_response();
    };
    let mut response = next.run(request).await;
    response.extensions_mut().insert(Caller(name.to_owned()));
    response
}

async fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address takes another method: see Allow, or /docs").close()
}

async fn nowhere() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address: see /docs for those that there are").close()
}

/// Counts, times and logs each request, and adds the headers that every answer has.
async fn observed(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.to_string());
    let route = route(request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if app.is_stopping() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let (status, seconds) = (response.status().as_u16(), start.elapsed().as_secs_f64());
    app.metrics.answered(route, status, seconds);
    let caller = response.extensions().get::<Caller>().map(|caller| caller.0.as_str());
    tracing::info!(target: "striate_serve::access", %method, path, status, milliseconds = seconds * 1e3, peer, caller);
    response
}

/// The names by which requests are counted: few, whatever is asked for.
fn route(matched: &str) -> &'static str {
    const ROUTES: [&str; 7] = [
        "/v1/models/{name}/predict",
        "/v1/models",
        "/v1/models/{name}/network.svg",
        "/metrics",
        "/healthz",
        "/readyz",
        "/admin/reload",
    ];
    match matched {
        "" => "none",
        matched => ROUTES.into_iter().find(|route| *route == matched).unwrap_or("page"),
    }
}
