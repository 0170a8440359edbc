//! Metrics that were counted elsewhere.

use std::collections::HashMap;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use strongroom_catalog::latency::{BOUNDS, Latency};

/// How long something took.
#[derive(Debug)]
pub(super) struct Fixed {
    seconds: f64,
    buckets: Vec<(f64, u64)>,
}

impl Fixed {
    pub(super) fn of(latency: &Latency) -> Self {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        Self { seconds: latency.seconds(), buckets: bounds.zip(latency.counts()).collect() }
    }
}

impl EncodeMetric for Fixed {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let count = self.buckets.iter().map(|(_, count)| count).sum();
        let none = None::<&HashMap<usize, Exemplar<NoLabelSet, f64>>>;
        encoder.encode_histogram(self.seconds, count, &self.buckets, none)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// A metric that is declared even when there is nothing to tell: so that who asks for it knows that
/// it asks for the right one.
#[derive(Debug)]
pub(super) struct Declared<M>(pub(super) M);

impl<M: EncodeMetric> EncodeMetric for Declared<M> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.0.metric_type()
    }
}
