//! Reading what a client sends, within limits.
use crate::Config;
use crate::predict::Deadline;
use crate::problem::Problem;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

/// The unit in which memory for bodies is counted.
const UNIT: usize = 1024;

/// Memory for the bodies of all requests.
#[derive(Debug, Clone)]
pub(crate) struct BodyMemory(Arc<Semaphore>);

/// A part of it, free again once this is gone.
#[derive(Debug)]
pub(crate) struct Held {
    _memory: OwnedSemaphorePermit,
}

impl BodyMemory {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS))))
    }

    fn take(&self, units: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let full = |_| {
            let detail = "the server holds as many bytes of requests as it may: try again after the seconds of Retry-After";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(Duration::from_secs(1)).close()
        };
        Arc::clone(&self.0).try_acquire_many_owned(units).map_err(full)
    }
}

/// Reads a body to its end. Memory is taken as bytes arrive, and not as they are announced: who only says much takes nothing.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    config: &Config,
    memory: &BodyMemory,
    deadline: Deadline,
) -> Result<(Bytes, Held), Problem> {
    let too_large = || {
        let detail =
            format!("the body is larger than {} bytes: send a smaller picture, or fewer in one request", config.max_body);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).close()
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > config.max_body as u64) {
        return Err(too_large());
    }
    let mut held = memory.take(0)?;
    let (mut parts, mut length): (Vec<Bytes>, usize) = (Vec::new(), 0);
    let slowest = Instant::now() + config.body_time;
    let until = deadline.at.min(slowest);
    let too_slow = |_| {
        if deadline.at < slowest {
            return deadline.missed().close();
        }
        let detail = "the body did not arrive in time: send it faster, or a smaller picture";
        Problem::new(StatusCode::REQUEST_TIMEOUT, detail).close()
    };
    while let Some(frame) = timeout_at(until.into(), body.frame()).await.map_err(too_slow)? {
        let broken =
            |_| Problem::new(StatusCode::BAD_REQUEST, "the body broke off, or its chunks are malformed: send it again").close();
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        let former = length;
        length += data.len();
        if length > config.max_body {
            return Err(too_large());
        }
        held.merge(memory.take(length.div_ceil(UNIT) - former.div_ceil(UNIT))?);
        parts.push(data);
    }
    let bytes = if parts.len() == 1 { parts.swap_remove(0) } else { parts.concat().into() };
    Ok((bytes, Held { _memory: held }))
}
