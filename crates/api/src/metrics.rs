//! What is counted, as Prometheus reads it.

mod fixed;
mod gather;
mod process;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use self::fixed::Declared;
use crate::app::App;
use crate::route::TextKind;

/// Bounds of the time of requests, in seconds.
const BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];

/// The methods that requests are counted by.
const KNOWN: [&str; 9] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// What [`Metrics::text`] gives.
#[derive(Clone, Copy, Debug)]
pub struct OpenMetrics;

impl TextKind for OpenMetrics {
    const KIND: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    operation: &'static str,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

/// The process's counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    times: Family<Operation, Histogram>,
    /// When the certificate ends, in seconds since 1970; 0: nobody knows.
    certificate: AtomicI64,
    last: gather::Last,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("strongroom");
        let requests = Family::<Request, Counter>::default();
        let help = "Requests that were answered";
        registry.register("http_requests", help, Declared(requests.clone()));
        let times = Family::<Operation, Histogram>::new_with_constructor(|| Histogram::new(BOUNDS));
        let help = "How long requests took until their answers began";
        let times_told = Declared(times.clone());
        registry.register_with_unit("http_request_time", help, Unit::Seconds, times_told);
        let started = Gauge::<i64>::default();
        started.set(Timestamp::now().as_second());
        let help = "When the process began to serve";
        registry.register("started_timestamp_seconds", help, started);
        Self {
            registry,
            requests,
            times,
            certificate: AtomicI64::new(0),
            last: gather::Last::default(),
        }
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
        // What nobody has heard of isn't kept.
        let method = KNOWN.into_iter().find(|known| *known == method).unwrap_or("other");
        let status = status.as_u16();
        self.requests.get_or_create(&Request { operation, method, status }).inc();
        self.times.get_or_create(&Operation { operation }).observe(time.as_secs_f64());
    }

    /// The certificate that is shown ends then; None: nobody knows.
    pub fn certificate(&self, until: Option<Timestamp>) {
        self.certificate.store(until.map_or(0, Timestamp::as_second), Ordering::Relaxed);
    }

    /// All of them, and all that is measured now, as text.
    pub async fn text(&self, app: &App) -> String {
        let mut out = String::new();
        let measured = gather::gather(app, &self.last).await;
        for registry in measured.iter().chain([&self.registry]) {
            // Writing to a string can't fail.
            let _ = text::encode_registry(&mut out, registry);
        }
        let until = self.certificate.load(Ordering::Relaxed);
        if until != 0 {
            let mut registry = Registry::with_prefix("strongroom");
            let gauge = Gauge::<i64>::default();
            gauge.set(until);
            let help = "When the certificate that is shown ends";
            registry.register("certificate_end_timestamp_seconds", help, gauge);
            let _ = text::encode_registry(&mut out, &registry);
        }
        let _ = text::encode_eof(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_were() {
        let metrics = Metrics::default();
        metrics.request("pools.list", &Method::GET, StatusCode::OK, Duration::from_millis(2));
        metrics.request("pools.list", &Method::GET, StatusCode::OK, Duration::from_millis(200));
        let mut text = String::new();
        text::encode_registry(&mut text, &metrics.registry).unwrap();
        let line = "strongroom_http_requests_total{operation=\"pools.list\",method=\"GET\",status=\"200\"} 2";
        assert!(text.contains(line), "{text}");
        let line =
            "strongroom_http_request_time_seconds_bucket{le=\"0.0025\",operation=\"pools.list\"} 1";
        assert!(text.contains(line), "{text}");
    }
}
