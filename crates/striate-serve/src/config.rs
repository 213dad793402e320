use crate::{Keys, Secret, ServeError, Tls};
use std::time::Duration;
use striate::ClassifierOptions;
use striate::datasets::DecodeOptions;

/// How a [`Server`](crate::Server) answers, and how much it takes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// How the networks compute and how pictures are decoded. `top` is what a request gets that names none.
    pub classifier: ClassifierOptions,
    /// The most pictures that are computed together.
    pub max_batch: usize,
    /// How long a picture may wait for others to be computed with. With zero, none waits for company: batches are what has come
    /// while the network was busy.
    pub max_wait: Duration,
    /// How many pictures of one network may be accepted and not yet answered. Those beyond are refused with 429.
    pub queue: usize,
    /// The most bytes of one request's body.
    pub max_body: usize,
    /// The most bytes of all bodies together that are held at a time.
    pub max_body_memory: usize,
    /// How long a client may take to send a request's head, or to begin the next one on an open connection.
    pub head_time: Duration,
    /// How long a client may take to send the body, and to take the answer.
    pub body_time: Duration,
    /// How long a request may take from its first byte to its answer. A client can ask for less.
    pub request_time: Duration,
    /// The most connections at a time.
    pub connections: usize,
    /// How long a server that was stopped goes on with what it accepted.
    pub drain_time: Duration,
    /// Whether requests may ask where in the picture an answer comes from. This holds the weights in memory a second time.
    pub explain: bool,
    /// Who may ask; everybody if it is none.
    pub keys: Option<Keys>,
    /// Who may have bundles exchanged over HTTP; nobody if it is none.
    pub admin_token: Option<Secret>,
    /// The certificate for HTTPS.
    pub tls: Option<Tls>,
}

impl Default for Config {
    /// Batches of 16, no waiting, 128 pictures, 10 MB of body, 25 megapixels, 30 seconds, 1,024 connections; everybody may ask.
    fn default() -> Self {
        let mut classifier = ClassifierOptions::default();
        classifier.decode = DecodeOptions { max_pixels: 25_000_000 };
        Self {
            classifier,
            max_batch: 16,
            max_wait: Duration::ZERO,
            queue: 128,
            max_body: 10_000_000,
            max_body_memory: 256_000_000,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(20),
            request_time: Duration::from_secs(30),
            connections: 1024,
            drain_time: Duration::from_secs(30),
            explain: true,
            keys: None,
            admin_token: None,
            tls: None,
        }
    }
}

impl Config {
    /// Refuses values with which no request could be answered.
    pub(crate) fn check(&self) -> Result<(), ServeError> {
        let counts = [
            ("max_batch", self.max_batch),
            ("queue", self.queue),
            ("max_body", self.max_body),
            ("max_body_memory", self.max_body_memory),
            ("connections", self.connections),
        ];
        let times = [("head_time", self.head_time), ("body_time", self.body_time), ("request_time", self.request_time)];
        for (option, count) in counts {
            if !(1..=u32::MAX as usize).contains(&count) {
                return Err(ServeError::Option {
                    option: format!("{option} = {count}"),
                    reason: "must be 1 or larger, and fit 32 bits",
                });
            }
        }
        for (option, time) in times {
            if time.is_zero() {
                return Err(ServeError::Option { option: format!("{option} = 0"), reason: "must be above 0" });
            }
        }
        if self.max_body > self.max_body_memory {
            let option = format!("max_body = {}", self.max_body);
            return Err(ServeError::Option { option, reason: "must be at most max_body_memory" });
        }
        Ok(())
    }
}
