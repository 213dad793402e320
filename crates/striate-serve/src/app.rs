//! What all requests share.
use crate::body::BodyMemory;
use crate::decode::Decoders;
use crate::metrics::Metrics;
use crate::model::{Model, Served};
use crate::problem::Problem;
use crate::{Config, ServeError};
use axum::http::StatusCode;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct App {
    models: BTreeMap<String, Model>,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) decoders: Decoders,
    pub(crate) body_memory: BodyMemory,
    /// Whether the server was asked to stop.
    pub(crate) stopping: watch::Sender<bool>,
    /// How often bundles were exchanged. Whoever exchanges them holds it.
    generation: Mutex<u64>,
}

impl App {
    pub(crate) fn new(bundles: Vec<Served>, config: Config) -> Result<Self, ServeError> {
        config.check()?;
        let metrics = Metrics::new();
        if bundles.is_empty() {
            return Err(ServeError::NoBundle);
        }
        // Before anything is read, which takes its time.
        let mut names: Vec<&str> = bundles.iter().map(Served::name).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.windows(2).find(|pair| pair[0] == pair[1]).and_then(|pair| pair.first_chunk()) {
            return Err(ServeError::TwoOfOneName { name: (*name).to_owned() });
        }
        let start = |served: Served| Ok((served.name().to_owned(), Model::start(served, &config, &metrics)?));
        let models = bundles.into_iter().map(start).collect::<Result<_, ServeError>>()?;
        Ok(Self {
            models,
            metrics,
            decoders: Decoders::start()?,
            body_memory: BodyMemory::new(config.max_body_memory),
            config,
            stopping: watch::Sender::new(false),
            generation: Mutex::default(),
        })
    }

    /// In the order of their names.
    pub(crate) fn models(&self) -> impl Iterator<Item = &Model> {
        self.models.values()
    }

    pub(crate) fn model(&self, name: &str) -> Result<&Model, Problem> {
        self.models.get(name).ok_or_else(|| {
            let names = self.models.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            Problem::new(StatusCode::NOT_FOUND, format!("there is no network of this name: there is {names}"))
        })
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Reads all bundles again, and exchanges all of them or none; how often that was done so far.
    pub(crate) fn reload(&self) -> Result<u64, ServeError> {
        let mut generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        let next = *generation + 1;
        let open = |model: &Model| model.open_again(&self.config, next);
        let opened = self.models().map(open).collect::<Result<Vec<_>, _>>();
        let opened = opened.inspect_err(|error| {
            self.metrics.exchanged("refused");
            tracing::error!("no bundle was exchanged, the former ones go on: {error}");
        })?;
        for (model, loaded) in self.models().zip(opened) {
            model.exchange(loaded);
        }
        *generation = next;
        self.metrics.exchanged("done");
        tracing::info!("the bundles were exchanged");
        Ok(next)
    }
}
