//! The metrics registry: one for the life of the process, kept across reloads.
//!
//! Each part makes its metrics with the helpers here and resolves label values when a plan is built, so
//! a request only increments atomic numbers. Label values come from the configuration alone.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{
    Encoder, Error, Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, TextEncoder,
};

use super::family::{Counters, Family, Gauges, Histograms};

/// The media type of [`Registry::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The commit that the program was built from, as `BEARER_PROXY_REVISION` named it to the compiler.
pub const REVISION: &str = match option_env!("BEARER_PROXY_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Buckets for whole requests, in seconds: OpenTelemetry's advice for HTTP, and 30 s for slow banks.
pub const REQUEST_SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0];

/// Buckets for token requests, in seconds.
pub const TOKEN_SECONDS: &[f64] =
    &[0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0];

/// Buckets for the time that a request spends in the proxy itself, in seconds.
pub const OVERHEAD_SECONDS: &[f64] =
    &[0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05];

/// All metrics of the process. Clones share one registry.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    metrics: prometheus::Registry,
    descriptions: Arc<Mutex<Vec<MetricDescription>>>,
}

/// A metric family as the reference in `docs/` lists it, with or without values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricDescription {
    /// Name, such as `bearer_proxy_token_usable`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of the labels.
    pub labels: Vec<String>,
    /// The text after `# HELP`.
    pub help: String,
}

/// A registered metric, or an error if its name is taken or malformed.
pub type MetricResult<T> = Result<T, Error>;

impl Registry {
    /// A registry without metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// A registry with `bearer_proxy_build_info` and the `process_*` metrics.
    pub fn with_process() -> MetricResult<Self> {
        let registry = Self::new();
        #[cfg(unix)]
        registry.add(super::process::ProcessCollector::new()?)?;
        let labels = ["version", "revision", "tls_provider"];
        let info = registry.gauge_vec("bearer_proxy_build_info", "Build information.", &labels)?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), REVISION, "aws-lc-rs"]).set(1);
        Ok(registry)
    }

    /// Descriptions of all families, ordered by name.
    pub fn descriptions(&self) -> Vec<MetricDescription> {
        let mut families = self.descriptions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        families.sort_unstable();
        families
    }

    /// All metrics in Prometheus' text exposition format.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 * 1024);
        if let Err(error) = TextEncoder::new().encode(&self.metrics.gather(), &mut text) {
            tracing::error!(%error, "not all metrics could be encoded");
        }
        text
    }

    /// Registers a collector.
    pub fn add<C: Collector + 'static>(&self, collector: C) -> MetricResult<()> {
        let described = descriptions(&collector);
        self.metrics.register(Box::new(collector))?;
        self.descriptions.lock().unwrap_or_else(PoisonError::into_inner).extend(described);
        Ok(())
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> MetricResult<C> {
        self.add(collector.clone())?;
        Ok(collector)
    }

    /// A counter without labels.
    pub fn counter(&self, name: &str, help: &str) -> MetricResult<IntCounter> {
        self.register(IntCounter::new(name, help)?)
    }

    /// A counter with labels.
    pub fn counter_vec(&self, name: &str, help: &str, labels: &[&str]) -> MetricResult<Counters> {
        self.register(Family::new(name, help, labels, &[])?)
    }

    /// A gauge without labels.
    pub fn gauge(&self, name: &str, help: &str) -> MetricResult<IntGauge> {
        self.register(IntGauge::new(name, help)?)
    }

    /// A gauge with labels.
    pub fn gauge_vec(&self, name: &str, help: &str, labels: &[&str]) -> MetricResult<Gauges> {
        self.register(Family::new(name, help, labels, &[])?)
    }

    /// A histogram without labels.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> MetricResult<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options)?)
    }

    /// A histogram with labels.
    pub fn histogram_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &'static [f64],
    ) -> MetricResult<Histograms> {
        self.register(Family::new(name, help, labels, buckets)?)
    }

    /// A gauge whose value is computed at each scrape.
    pub fn polled_gauge(
        &self,
        name: &str,
        help: &str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> MetricResult<()> {
        let gauge = Gauge::new(name, help)?;
        self.add(PolledMetric { metric: gauge.clone(), refresh: move || gauge.set(read()) })
    }

    /// Gauges with labels that `fill` sets at each scrape. Those that it does not set are not exported.
    pub fn polled_gauge_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        fill: impl Fn(&Gauges) + Send + Sync + 'static,
    ) -> MetricResult<()> {
        self.add(PolledFamily { family: Family::new(name, help, labels, &[])?, fill })
    }

    /// A counter whose value is computed at each scrape.
    pub fn polled_counter(
        &self,
        name: &str,
        help: &str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> MetricResult<()> {
        let counter = IntCounter::new(name, help)?;
        let refreshed = counter.clone();
        let refresh = move || refreshed.inc_by(read().saturating_sub(refreshed.get()));
        self.add(PolledMetric { metric: counter, refresh })
    }
}

/// Descriptions of the families of a collector.
fn descriptions(collector: &impl Collector) -> Vec<MetricDescription> {
    let families = collector.collect();
    let kind = |name: &str| {
        let family = families.iter().find(|family| family.name() == name);
        match family.map(MetricFamily::get_field_type) {
            Some(MetricType::COUNTER) => "counter",
            Some(MetricType::HISTOGRAM) => "histogram",
            _ => "gauge",
        }
    };
    let describe = |desc: &Desc| MetricDescription {
        name: desc.fq_name.clone(),
        kind: kind(&desc.fq_name),
        labels: desc.variable_labels.clone(),
        help: desc.help.clone(),
    };
    collector.desc().into_iter().map(describe).collect()
}

/// A metric that is updated before each scrape.
struct PolledMetric<C, F> {
    metric: C,
    refresh: F,
}

impl<C: Collector, F: Fn() + Send + Sync> Collector for PolledMetric<C, F> {
    fn desc(&self) -> Vec<&Desc> {
        self.metric.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.refresh)();
        self.metric.collect()
    }
}

/// A family whose children are made for each scrape.
struct PolledFamily<F> {
    family: Gauges,
    fill: F,
}

impl<F: Fn(&Gauges) + Send + Sync> Collector for PolledFamily<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.family.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // A family of its own for each scrape: two at once do not see each other's half.
        let family = self.family.emptied();
        (self.fill)(&family);
        family.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_what_was_registered() {
        let registry = Registry::with_process().unwrap();
        let requests = registry.counter_vec("x_total", "Help.", &["a"]).unwrap();
        requests.with_label_values(&["b"]).inc();
        registry.polled_gauge("open", "Help.", || 2.5).unwrap();
        registry.polled_counter("lost_total", "Help.", || 7).unwrap();
        let now = std::sync::atomic::AtomicU32::new(0);
        let fill = move |gauges: &Gauges| {
            let now = now.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            gauges.with_label_values(&[&format!("scrape {now}")]).set(now);
        };
        registry.polled_gauge_vec("each", "Help.", &["a"], fill).unwrap();
        registry.counter_vec("unused_total", "Help.", &["a"]).unwrap();
        registry.render();
        let text = String::from_utf8(registry.render()).unwrap();
        for line in [
            "# TYPE x_total counter",
            "x_total{a=\"b\"} 1",
            "open 2.5",
            "lost_total 7",
            // It was collected once for its description, and once by the first `render`.
            "each{a=\"scrape 2\"} 2",
            "# TYPE process_cpu_seconds_total counter",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is missing in {text}");
        }
        assert!(text.contains("bearer_proxy_build_info{revision="));
        assert!(!text.contains("scrape 1"), "children of the scrape before are gone: {text}");
        let described = registry.descriptions();
        let unused = described.iter().find(|family| family.name == "unused_total").unwrap();
        assert_eq!((unused.kind, &*unused.labels), ("counter", &["a".to_owned()][..]));
    }

    #[test]
    fn a_name_is_taken_once() {
        let registry = Registry::new();
        registry.counter("a_total", "Help.").unwrap();
        registry.counter("a_total", "Help.").unwrap_err();
        registry.counter("a-b", "Help.").unwrap_err();
    }
}
