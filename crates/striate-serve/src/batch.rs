//! The queue of a network, and who computes what waits in it.
//!
//! The network's thread takes what waits and computes it together, with all cores: batches side by side, on a core each, would take
//! longer, since each reads all weights. Where a picture takes less than waking a thread does, the tasks that have decoded it compute
//! it too; there are as many lanes for them and the thread as calls that the network computes side by side.
use crate::metrics::NetworkMetrics;
use crate::model::{Explanation, Loaded};
use crate::problem::Problem;
use axum::http::StatusCode;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use striate::Prediction;
use striate::tch::Tensor;
use striate_torch::thread_width;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::yield_now;

/// For how many pictures' time one that could be computed waits for others that are likely to come.
const PATIENCE: u32 = 2;

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
    /// How many batches of a light network are computed side by side.
    pub(crate) lanes: usize,
}

/// The pictures that wait for a network.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// There is something to do, or the end.
    came: Condvar,
    batching: Batching,
    metrics: NetworkMetrics,
    /// The nanoseconds that a picture takes.
    pace: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// How many lanes are taken.
    taken: usize,
    /// Whether one of them belongs to a task that has not begun: it will compute what comes until then.
    begins: bool,
    is_closed: bool,
}

impl Queue {
    /// A queue with its thread, which ends after [`close`](Self::close).
    pub(crate) fn start(name: &str, batching: Batching, metrics: NetworkMetrics) -> std::io::Result<Arc<Self>> {
        let (state, came) = (Mutex::default(), Condvar::new());
        let queue = Arc::new(Self { state, came, batching, metrics, pace: AtomicU64::new(0) });
        let works = Arc::clone(&queue);
        std::thread::Builder::new().name(format!("network {name}")).spawn(move || works.work())?;
        Ok(queue)
    }

    /// Ends the thread once nothing waits.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.came.notify_one();
    }

    pub(crate) fn max_wait(&self) -> Duration {
        self.batching.max_wait
    }

    /// How long a picture takes.
    pub(crate) fn pace(&self) -> Duration {
        Duration::from_nanos(self.pace.load(Ordering::Relaxed))
    }

    /// Leaves a picture to the network's thread.
    pub(crate) fn push(&self, job: Job) {
        self.lock().jobs.push_back(job);
        self.came.notify_one();
    }

    /// Leaves a picture of a light network to tasks of the runtime that calls this.
    pub(crate) fn push_here(self: &Arc<Self>, job: Job) {
        let mut state = self.lock();
        state.jobs.push_back(job);
        // Otherwise, who has a lane looks again before giving it up.
        if state.taken < self.batching.lanes && !state.begins {
            state.taken += 1;
            state.begins = true;
            drop(state);
            tokio::spawn(here(Lane(Arc::clone(self))));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the network's thread does.
    fn work(self: &Arc<Self>) {
        // The pictures of the last batch, and when they were answered.
        let mut last = (0, Instant::now());
        let mut state = self.lock();
        loop {
            let Some(first) = state.jobs.front().filter(|_| state.taken < self.batching.lanes) else {
                if state.is_closed && state.jobs.is_empty() {
                    return;
                }
                state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let waits = first.since.elapsed();
            // Whoever was answered just now may send the next picture soon: a larger batch takes less for each.
            let company = if state.jobs.len() < last.0 { PATIENCE * self.pace() } else { Duration::ZERO };
            let more = company.saturating_sub(waits.min(last.1.elapsed())).max(self.batching.max_wait.saturating_sub(waits));
            if !more.is_zero() && state.jobs.len() < self.batching.max_batch && !state.is_closed {
                let waited = self.came.wait_timeout(state, more);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let batch = form(&mut state.jobs, self.batching.max_batch);
            state.taken += 1;
            drop(state);
            let (lane, count) = (Lane(Arc::clone(self)), batch.len());
            compute(batch, &self.metrics, &self.pace);
            drop(lane);
            last = (count, Instant::now());
            state = self.lock();
        }
    }
}

/// The right to compute a batch, until it is dropped.
struct Lane(Arc<Queue>);

impl Drop for Lane {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.taken -= 1;
        if !state.jobs.is_empty() {
            self.0.came.notify_one();
        }
    }
}

/// Computes what waits, on the thread of the runtime that runs this.
async fn here(lane: Lane) {
    loop {
        // Answers go out, and requests that have come are read and decoded first. After one of the two, the runtime would come back
        // before that.
        yield_now().await;
        yield_now().await;
        let batch = {
            let mut state = lane.0.lock();
            state.begins = false;
            form(&mut state.jobs, lane.0.batching.max_batch)
        };
        if batch.is_empty() {
            return;
        }
        compute(batch, &lane.0.metrics, &lane.0.pace);
    }
}

/// Takes the first of those that wait, as long as they are for one and the same network.
fn form(jobs: &mut VecDeque<Job>, most: usize) -> Vec<Job> {
    let Some(first) = jobs.front() else { return Vec::new() };
    let same = jobs.iter().take(most).take_while(|job| Arc::ptr_eq(&job.loaded, &first.loaded));
    let count = same.count();
    jobs.drain(..count).collect()
}

fn compute(batch: Vec<Job>, metrics: &NetworkMetrics, pace: &AtomicU64) {
    let start = Instant::now();
    // Nobody waits for those.
    let wanted = |job: &Job| !job.reply.answer.is_closed() && job.deadline > start;
    let batch: Vec<Job> = batch.into_iter().filter(wanted).collect();
    let Some(first) = batch.first() else { return };
    let loaded = Arc::clone(&first.loaded);
    // Sharing so little out takes longer than it saves.
    let _width = loaded.is_light.then(|| thread_width(1));
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::{Config, Served};
    use striate::Bundle;
    use striate::datasets::{Fit, Normalise, Preprocess};
    use striate::graph::Graph;
    use striate::layers::{AdaptiveAvgPool2d, Flatten};
    use striate::models::BundleInfo;
    use striate::tch::{Device, Kind};
    use tokio::sync::Semaphore;

    /// A network that says which channel is the brightest, as if it were a light one.
    fn light() -> Arc<Loaded> {
        let graph = Graph::build(|net| {
            let x = net.input([3, 4, 4]);
            let x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?; // [3, 1, 1]
            let x = net.add("flatten", Flatten, x)?; // [3]
            net.output("logits", x)
        });
        let preprocess = Preprocess::new([3, 4, 4], [3, 4, 4], Fit::Resize, Normalise::identity()).unwrap();
        let info = BundleInfo::new(graph.unwrap(), &["red", "green", "blue"].map(str::to_owned), Some(preprocess));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tints.safetensors");
        Bundle { info, state: [].into() }.write(&path).unwrap();
        let mut loaded = Loaded::open(&Served::new(path).unwrap(), &Config::default(), 0).unwrap();
        loaded.is_light = true;
        Arc::new(loaded)
    }

    /// What comes back for pictures that are there before a task of the runtime has begun: the class of each, and the size of its batch.
    fn answers(batching: Batching, pictures: usize) -> Vec<(usize, usize)> {
        // Without the network's thread, which may take what the tasks leave.
        let metrics = Metrics::new().of_network("tints");
        let queue = Arc::new(Queue { state: Mutex::default(), came: Condvar::new(), batching, metrics, pace: AtomicU64::new(0) });
        let (loaded, places) = (light(), Arc::new(Semaphore::new(pictures)));
        let now = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut waiting = Vec::new();
            for number in 0..pictures {
                let input = Tensor::zeros([1, 3, 4, 4], (Kind::Float, Device::Cpu));
                let _ = input.select(1, (number % 3) as i64).fill_(1.0);
                let (answer, answered) = oneshot::channel();
                let place = Arc::clone(&places).acquire_owned().await.unwrap();
                queue.push_here(Job {
                    input,
                    loaded: Arc::clone(&loaded),
                    top: 1,
                    explain: false,
                    decode: Duration::ZERO,
                    since: now,
                    deadline: now + Duration::from_secs(60),
                    reply: Reply { answer, place },
                });
                waiting.push(answered);
            }
            let mut answers = Vec::new();
            for answered in waiting {
                let answer = answered.await.unwrap().unwrap();
                answers.push((answer.prediction.top[0].index, answer.batch));
            }
            answers
        })
    }

    #[test]
    fn pictures_of_a_light_network_that_wait_are_one_batch() {
        for lanes in [1, 2] {
            let batching = Batching { max_batch: 16, max_wait: Duration::ZERO, lanes };
            let expected: Vec<_> = (0..7).map(|number| (number % 3, 7)).collect();
            assert_eq!(answers(batching, 7), expected, "{lanes} lanes");
        }
        let batching = Batching { max_batch: 3, max_wait: Duration::ZERO, lanes: 1 };
        let sizes: Vec<usize> = answers(batching, 7).into_iter().map(|(_, batch)| batch).collect();
        assert_eq!(sizes, [3, 3, 3, 3, 3, 3, 1]);
    }
}
