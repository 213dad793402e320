//! Errors over HTTP, as RFC 9457 has them.
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

/// The type of a problem's content.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// Why there is no answer, and what to do (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong, and what to do.
    detail: String,
    #[serde(skip)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { kind: "about:blank", title, status: status.as_u16(), detail: detail.into(), headers: Vec::new() }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Says when to try again: in whole seconds, at least one.
    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        self.with(header::RETRY_AFTER, (wait.as_secs_f64().ceil() as u64).max(1))
    }

    /// Closes the connection, whose request was not read to its end.
    pub(crate) fn close(self) -> Self {
        self.with(header::CONNECTION, HeaderValue::from_static("close"))
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let (status, headers) = (self.status(), std::mem::take(&mut self.headers));
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response.headers_mut().extend(headers);
        response
    }
}

impl From<striate::Error> for Problem {
    /// A picture that can't be read is the client's mistake; anything else is the server's.
    fn from(error: striate::Error) -> Self {
        match error {
            striate::Error::Dataset(error) if !error.is_failure() => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
            }
            error => {
                tracing::error!("a request failed: {error}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the network failed on this picture: the server's log says why")
            }
        }
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{}: see /v1/models for the names", rejection.body_text()))
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let reason = rejection.body_text();
        // The first part speaks of the server's insides.
        let reason = reason.split_once(": ").map_or(reason.as_str(), |(_, reason)| reason);
        Self::new(StatusCode::BAD_REQUEST, format!("the address's parameters can't be read ({reason}): see /docs for them"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds() {
        for (milliseconds, told) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (59_500, "60")] {
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "x").retry_after(Duration::from_millis(milliseconds));
            let response = problem.into_response();
            assert_eq!(response.headers()[header::RETRY_AFTER], told);
            assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        }
    }
}
