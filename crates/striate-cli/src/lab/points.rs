//! How far a grid is.
use indicatif::ProgressStyle;
use tracing::{Span, info_span};
use tracing_indicatif::span_ext::IndicatifSpanExt;

/// A bar over the points of a grid.
pub(crate) struct Points(Span);

impl Points {
    pub(crate) fn new() -> Self {
        let bar = info_span!("points");
        let template = "[{bar:30}] {pos}/{len} points, {eta} left";
        bar.pb_set_style(&ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.pb_start();
        Self(bar)
    }

    pub(crate) fn update(&self, done: usize, all: usize) {
        self.0.pb_set_length(all as u64);
        self.0.pb_set_position(done as u64);
    }
}
