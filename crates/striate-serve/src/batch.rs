//! One thread for each network: it takes the pictures that have come, and computes them together.
use crate::metrics::NetworkMetrics;
use crate::model::{Explanation, Loaded};
use crate::problem::Problem;
use axum::http::StatusCode;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};
use striate::Prediction;
use striate::tch::Tensor;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// A decoded picture that waits for its network.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) input: Tensor,
    /// The network that it was decoded for. Whatever is exchanged meanwhile, this one answers.
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) top: usize,
    pub(crate) explain: bool,
    pub(crate) decode: Duration,
    /// Since when it has been decoded.
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    pub(crate) reply: Reply,
}

/// Where an answer goes, and the place in the queue that is free once this is gone.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) answer: oneshot::Sender<Result<Answer, Problem>>,
    pub(crate) place: OwnedSemaphorePermit,
}

impl Reply {
    pub(crate) fn send(self, answer: Result<Answer, Problem>) {
        // The place is free before the client knows, so that its next request finds it so.
        drop(self.place);
        // Whoever asked may have gone.
        let _ = self.answer.send(answer);
    }
}

/// What comes back for one picture.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) prediction: Prediction,
    pub(crate) explanation: Option<Explanation>,
    pub(crate) decode: Duration,
    pub(crate) queue: Duration,
    /// Of the whole batch.
    pub(crate) compute: Duration,
    pub(crate) batch: usize,
}

/// How batches form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batching {
    pub(crate) max_batch: usize,
    pub(crate) max_wait: Duration,
}

/// Starts the thread of a network; it ends when all senders are gone. `pace` gets the nanoseconds that a picture takes.
pub(crate) fn start(
    name: &str,
    batching: Batching,
    metrics: NetworkMetrics,
    pace: Arc<AtomicU64>,
) -> std::io::Result<Sender<Job>> {
    let (sender, jobs) = channel();
    let work = move || {
        let mut next = None;
        while let Some(batch) = form(&jobs, &mut next, batching) {
            compute(batch, &metrics, &pace);
        }
    };
    std::thread::Builder::new().name(format!("network {name}")).spawn(work)?;
    Ok(sender)
}

/// The pictures that are computed next: those that have come, for one and the same network. `next` keeps one that came for another.
fn form(jobs: &Receiver<Job>, next: &mut Option<Job>, Batching { max_batch, max_wait }: Batching) -> Option<Vec<Job>> {
    let first = next.take().or_else(|| jobs.recv().ok())?;
    let until = first.since + max_wait;
    let mut batch = vec![first];
    while batch.len() < max_batch {
        let job = match jobs.try_recv() {
            Ok(job) => job,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => match jobs.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            },
        };
        if !Arc::ptr_eq(&job.loaded, &batch[0].loaded) {
            *next = Some(job);
            break;
        }
        batch.push(job);
    }
    Some(batch)
}

fn compute(batch: Vec<Job>, metrics: &NetworkMetrics, pace: &AtomicU64) {
    let start = Instant::now();
    // Nobody waits for those.
    let wanted = |job: &Job| !job.reply.answer.is_closed() && job.deadline > start;
    let batch: Vec<Job> = batch.into_iter().filter(wanted).collect();
    let Some(first) = batch.first() else { return };
    let loaded = Arc::clone(&first.loaded);
    let top = batch.iter().map(|job| job.top).max().unwrap_or(1);
    let inputs: Vec<&Tensor> = batch.iter().map(|job| &job.input).collect();
    let predictions = contained(|| {
        let together = if inputs.len() == 1 {
            inputs[0].shallow_clone()
        } else {
            Tensor::f_cat(&inputs, 0).map_err(striate::Error::from)?
        };
        loaded.classifier.answers(&together, top)
    });
    let compute = start.elapsed();
    let count = batch.len();
    metrics.batch.observe(count as f64);
    metrics.compute.observe(compute.as_secs_f64());
    keep_pace(pace, compute, count);
    let predictions = match predictions {
        Ok(predictions) => predictions,
        Err(problem) => return batch.into_iter().for_each(|job| job.reply.send(Err(problem.clone()))),
    };
    let mut to_explain = Vec::new();
    for (job, mut prediction) in batch.into_iter().zip(predictions) {
        prediction.top.truncate(job.top.max(if loaded.is_multi_label() { usize::MAX } else { 1 }));
        let queue = start - job.since;
        metrics.queue.observe(queue.as_secs_f64());
        metrics.decode.observe(job.decode.as_secs_f64());
        metrics.pictures.inc();
        let answer = Answer { prediction, explanation: None, decode: job.decode, queue, compute, batch: count };
        match job.explain {
            true => to_explain.push((job.input, job.reply, answer)),
            false => job.reply.send(Ok(answer)),
        }
    }
    // The others have their answers already.
    for (input, reply, answer) in to_explain {
        let start = Instant::now();
        let explained = match answer.prediction.top.first() {
            Some(likeliest) => contained(|| loaded.explain(&input, likeliest)),
            None => Ok(None),
        };
        reply.send(explained.map(|explanation| Answer { explanation, compute: answer.compute + start.elapsed(), ..answer }));
    }
}

/// Runs the network, whose panic is an error too.
fn contained<T>(run: impl FnOnce() -> Result<T, striate::Error>) -> Result<T, Problem> {
    let panicked =
        |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the network failed on this picture: the server's log says why");
    catch_unwind(AssertUnwindSafe(run)).map_err(panicked)?.map_err(Problem::from)
}

/// Keeps the time of a picture, smoothed: the latest batch counts a quarter.
fn keep_pace(pace: &AtomicU64, compute: Duration, count: usize) {
    let latest = u64::try_from(compute.as_nanos() / count.max(1) as u128).unwrap_or(u64::MAX);
    let former = pace.load(Ordering::Relaxed);
    pace.store(if former == 0 { latest } else { former - former / 4 + latest / 4 }, Ordering::Relaxed);
}
