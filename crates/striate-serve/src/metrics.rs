//! What Prometheus reads.
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The type of the text.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Network {
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// All figures of a server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    request_seconds: Histogram,
    pictures: Family<Network, Counter>,
    batches: Family<Network, Histogram>,
    stages: [Family<Network, Histogram>; 3],
    waiting: Family<Network, Gauge>,
    exchanges: Family<Outcome, Counter>,
    /// Open connections.
    pub(crate) connections: Gauge,
}

/// The figures of one network.
#[derive(Debug, Clone)]
pub(crate) struct NetworkMetrics {
    /// Pictures answered.
    pub(crate) pictures: Counter,
    /// Pictures in each batch.
    pub(crate) batch: Histogram,
    /// Seconds from bytes to the network's input.
    pub(crate) decode: Histogram,
    /// Seconds from there until the network began.
    pub(crate) queue: Histogram,
    /// Seconds of the network, for a whole batch.
    pub(crate) compute: Histogram,
    /// Pictures accepted and not answered.
    pub(crate) waiting: Gauge,
}

/// From a tenth of a millisecond to 13 seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(1e-4, 2.0, 18))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("striate");
        let requests = Family::default();
        let request_seconds = seconds();
        let pictures = Family::default();
        let batches = Family::<Network, Histogram>::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 2.0, 8)));
        let stages = [(); 3].map(|()| Family::<Network, Histogram>::new_with_constructor(seconds));
        let waiting = Family::default();
        let exchanges = Family::default();
        let connections = Gauge::default();
        registry.register("requests", "Requests answered, by route and status", requests.clone());
        registry.register("request_seconds", "From a request's head to its answer", request_seconds.clone());
        registry.register("pictures", "Pictures answered", pictures.clone());
        registry.register("batch_pictures", "Pictures computed together", batches.clone());
        for (family, (name, help)) in stages.iter().zip([
            ("decode_seconds", "From a picture's bytes to the network's input"),
            ("queue_seconds", "From there until the network began"),
            ("compute_seconds", "The network, for a whole batch"),
        ]) {
            registry.register(name, help, family.clone());
        }
        registry.register("waiting_pictures", "Pictures accepted and not yet answered", waiting.clone());
        registry.register("exchanges", "Exchanges of bundles, by outcome", exchanges.clone());
        registry.register("connections", "Open connections", connections.clone());
        Self { registry, requests, request_seconds, pictures, batches, stages, waiting, exchanges, connections }
    }

    pub(crate) fn of_network(&self, name: &str) -> NetworkMetrics {
        let network = Network { model: name.to_owned() };
        let [decode, queue, compute] = self.stages.each_ref().map(|family| family.get_or_create_owned(&network));
        NetworkMetrics {
            pictures: self.pictures.get_or_create_owned(&network),
            batch: self.batches.get_or_create_owned(&network),
            decode,
            queue,
            compute,
            waiting: self.waiting.get_or_create_owned(&network),
        }
    }

    pub(crate) fn answered(&self, route: &'static str, status: u16, seconds: f64) {
        self.requests.get_or_create(&Request { route, status }).inc();
        self.request_seconds.observe(seconds);
    }

    pub(crate) fn exchanged(&self, outcome: &'static str) {
        self.exchanges.get_or_create(&Outcome { outcome }).inc();
    }

    /// All of it in OpenMetrics' text format.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
