//! What is counted, as Prometheus reads it.

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::route::TextKind;

/// Bounds of the time of requests, in seconds.
const BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];

/// What [`Metrics::text`] gives.
#[derive(Clone, Copy, Debug)]
pub struct OpenMetrics;

impl TextKind for OpenMetrics {
    const KIND: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    operation: &'static str,
    method: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

/// A number that belongs to something with a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    name: String,
}

/// The process's counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    times: Family<Operation, Histogram>,
    jobs: Family<Named, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("strongroom");
        let requests = Family::<Request, Counter>::default();
        registry.register("http_requests", "Requests that were answered", requests.clone());
        let times = Family::<Operation, Histogram>::new_with_constructor(|| Histogram::new(BOUNDS));
        let help = "How long requests took until their answers began";
        registry.register_with_unit("http_request_time", help, Unit::Seconds, times.clone());
        let jobs = Family::<Named, Gauge>::default();
        registry.register("jobs", "Jobs by state", jobs.clone());
        Self { registry, requests, times, jobs }
    }
}

impl Metrics {
    /// A request was answered.
    pub fn request(
        &self,
        operation: &'static str,
        method: &Method,
        status: StatusCode,
        time: Duration,
    ) {
        let (method, status) = (method.as_str().to_owned(), status.as_u16());
        self.requests.get_or_create(&Request { operation, method, status }).inc();
        self.times.get_or_create(&Operation { operation }).observe(time.as_secs_f64());
    }

    /// So many jobs are in this state.
    pub fn jobs(&self, state: &str, count: u64) {
        let gauge = self.jobs.get_or_create(&Named { name: state.to_owned() });
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// All of them, as text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string can't fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_were() {
        let metrics = Metrics::default();
        metrics.request("pools.list", &Method::GET, StatusCode::OK, Duration::from_millis(2));
        metrics.request("pools.list", &Method::GET, StatusCode::OK, Duration::from_millis(200));
        let text = metrics.text();
        let line = "strongroom_http_requests_total{operation=\"pools.list\",method=\"GET\",status=\"200\"} 2";
        assert!(text.contains(line), "{text}");
        let line =
            "strongroom_http_request_time_seconds_bucket{le=\"0.0025\",operation=\"pools.list\"} 1";
        assert!(text.contains(line), "{text}");
    }
}
