//! Families of metrics with labels: one child per combination of label values.
//!
//! In the `prometheus` crate's own vectors each child repeats its name, its help text and the names of
//! its labels, about a kilobyte. With ten thousand routes that was a hundred megabytes, and most of the
//! time of a start. Here the family holds these texts once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

/// A family of metrics; clones share its children.
#[derive(Clone)]
pub struct Family<V>(Arc<FamilyInner<V>>);

/// Counters with labels.
pub type Counters = Family<Counter>;
/// Gauges with labels.
pub type Gauges = Family<Gauge>;
/// Histograms with labels.
pub type Histograms = Family<Histogram>;

struct FamilyInner<V> {
    desc: Desc,
    /// Upper bounds of a histogram's buckets, ascending; empty for other metrics.
    bounds: &'static [f64],
    children: Mutex<HashMap<LabelValues, V>>,
}

/// The values of all labels, joined by [`SEPARATOR`].
type LabelValues = Box<[u8]>;

/// A byte that UTF-8 text never holds.
const SEPARATOR: u8 = 0xff;

/// The value of one child.
pub trait MetricValue: Clone + Send + Sync + 'static {
    /// The metric type in Prometheus' exposition format.
    const KIND: MetricType;

    /// A value of zero.
    fn zero(bounds: &'static [f64]) -> Self;

    /// Writes the current value into `metric`.
    fn encode(&self, metric: &mut Metric);
}

impl<V: MetricValue> Family<V> {
    pub(super) fn new(
        name: &str,
        help: &str,
        labels: &[&str],
        bounds: &'static [f64],
    ) -> Result<Self, prometheus::Error> {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())?;
        Ok(Self(Arc::new(FamilyInner { desc, bounds, children: Mutex::default() })))
    }

    /// A family of the same description without children, which is not registered.
    pub(super) fn emptied(&self) -> Self {
        let FamilyInner { desc, bounds, .. } = &*self.0;
        Self(Arc::new(FamilyInner { desc: desc.clone(), bounds, children: Mutex::default() }))
    }

    /// The child with these label values, in the order of the labels. It is exported from now on.
    pub fn with_label_values(&self, values: &[&str]) -> V {
        let desc = &self.0.desc;
        debug_assert_eq!(values.len(), desc.variable_labels.len(), "{}", desc.fq_name);
        let zero = || V::zero(self.0.bounds);
        self.children().entry(join(values)).or_insert_with(zero).clone()
    }

    /// Removes the child with these label values from the export.
    pub fn remove_label_values(&self, values: &[&str]) {
        self.children().remove(&join(values));
    }

    /// Removes all children from the export.
    pub fn reset(&self) {
        self.children().clear();
    }

    fn children(&self) -> MutexGuard<'_, HashMap<LabelValues, V>> {
        self.0.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn metric(&self, label_values: &[u8], value: &V) -> Metric {
        let names = self.0.desc.variable_labels.iter();
        let values = label_values.split(|byte| *byte == SEPARATOR);
        let mut labels: Vec<_> = names.zip(values).map(label_pair).collect();
        labels.sort_unstable();
        let mut metric = Metric::from_label(labels);
        value.encode(&mut metric);
        metric
    }
}

fn join(values: &[&str]) -> LabelValues {
    let values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
    values.join(&SEPARATOR).into_boxed_slice()
}

fn label_pair((name, value): (&String, &[u8])) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.clone());
    pair.set_value(String::from_utf8_lossy(value).into_owned());
    pair
}

impl<V: MetricValue> Collector for Family<V> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let children = self.children();
        let mut family = MetricFamily::default();
        family.set_name(self.0.desc.fq_name.clone());
        family.set_help(self.0.desc.help.clone());
        family.set_field_type(V::KIND);
        let metrics = children.iter().map(|(values, child)| self.metric(values, child));
        family.set_metric(metrics.collect());
        vec![family]
    }
}

/// A number that only grows.
#[derive(Clone)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl MetricValue for Counter {
    const KIND: MetricType = MetricType::COUNTER;

    fn zero(_: &'static [f64]) -> Self {
        Self(Arc::default())
    }

    fn encode(&self, metric: &mut Metric) {
        let mut counter = proto::Counter::default();
        counter.set_value(self.get() as f64);
        metric.set_counter(counter);
    }
}

/// A number that goes up and down; the bits of an `f64`.
#[derive(Clone)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: impl Into<f64>) {
        self.0.store(value.into().to_bits(), Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

impl MetricValue for Gauge {
    const KIND: MetricType = MetricType::GAUGE;

    fn zero(_: &'static [f64]) -> Self {
        Self(Arc::default())
    }

    fn encode(&self, metric: &mut Metric) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(self.get());
        metric.set_gauge(gauge);
    }
}

/// Counts of observations by bucket, and their sum.
#[derive(Clone)]
pub struct Histogram(Arc<HistogramInner>);

struct HistogramInner {
    bounds: &'static [f64],
    /// One count for each bound, and one for observations above the last.
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl Histogram {
    /// Adds one observation. It is not atomic with a concurrent scrape: the count may be visible before
    /// the sum.
    pub fn observe(&self, value: f64) {
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.0.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        let _ = self.0.sum.fetch_update(Relaxed, Relaxed, add);
    }

    /// The bound of the first bucket up to which this share of all observations lies; `None` without any, and
    /// where it lies above the last bound.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let counts: Vec<u64> = self.0.counts.iter().map(|count| count.load(Relaxed)).collect();
        let wanted = counts.iter().sum::<u64>() as f64 * share;
        let mut below = 0;
        let bucket = counts.iter().position(|count| {
            below += count;
            below > 0 && below as f64 >= wanted
        })?;
        self.0.bounds.get(bucket).copied()
    }

    /// The mean of all observations; 0 without any.
    pub fn mean(&self) -> f64 {
        let count: u64 = self.0.counts.iter().map(|count| count.load(Relaxed)).sum();
        if count == 0 { 0.0 } else { f64::from_bits(self.0.sum.load(Relaxed)) / count as f64 }
    }
}

impl MetricValue for Histogram {
    const KIND: MetricType = MetricType::HISTOGRAM;

    fn zero(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::default()).collect();
        Self(Arc::new(HistogramInner { bounds, counts, sum: AtomicU64::default() }))
    }

    fn encode(&self, metric: &mut Metric) {
        let mut total = 0;
        let mut buckets = Vec::with_capacity(self.0.bounds.len());
        for (bound, count) in self.0.bounds.iter().zip(&self.0.counts) {
            total += count.load(Relaxed);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(total);
            buckets.push(bucket);
        }
        total += self.0.counts.last().map_or(0, |count| count.load(Relaxed));
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(total);
        histogram.set_sample_sum(f64::from_bits(self.0.sum.load(Relaxed)));
        metric.set_histogram(histogram);
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Registry;

    fn lines(registry: &Registry) -> Vec<String> {
        let text = String::from_utf8(registry.render()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_family_reads_as_the_librarys_own() {
        let registry = Registry::new();
        let counters = registry.counter_vec("a_total", "Help.", &["y", "x"]).unwrap();
        counters.with_label_values(&["quo\"te", "1"]).inc();
        counters.with_label_values(&["quo\"te", "1"]).inc();
        counters.with_label_values(&["", "0"]);
        let gauges = registry.gauge_vec("b", "Help.", &["x"]).unwrap();
        gauges.with_label_values(&["1"]).set(-2.5);
        let times = registry.histogram_vec("c", "Help.", &["x"], &[0.5, 1.0]).unwrap();
        for value in [0.25, 0.5, 0.75, 4.0] {
            times.with_label_values(&["1"]).observe(value);
        }
        let times_1 = times.with_label_values(&["1"]);
        let quantiles = [0.5, 0.75, 0.95].map(|share| times_1.quantile(share));
        assert_eq!(quantiles, [Some(0.5), Some(1.0), None]);
        assert_eq!(times.with_label_values(&["2"]).quantile(0.5), None);
        times.remove_label_values(&["2"]);
        let expected = [
            "# HELP a_total Help.",
            "# TYPE a_total counter",
            "a_total{x=\"0\",y=\"\"} 0",
            "a_total{x=\"1\",y=\"quo\\\"te\"} 2",
            "# HELP b Help.",
            "# TYPE b gauge",
            "b{x=\"1\"} -2.5",
            "# HELP c Help.",
            "# TYPE c histogram",
            "c_bucket{x=\"1\",le=\"0.5\"} 2",
            "c_bucket{x=\"1\",le=\"1\"} 3",
            "c_bucket{x=\"1\",le=\"+Inf\"} 4",
            "c_sum{x=\"1\"} 5.5",
            "c_count{x=\"1\"} 4",
        ];
        assert_eq!(lines(&registry), expected);
    }

    #[test]
    fn a_removed_child_is_not_exported_and_starts_at_zero() {
        let registry = Registry::new();
        let gauges = registry.gauge_vec("b", "Help.", &["x"]).unwrap();
        gauges.with_label_values(&["1"]).set(7);
        gauges.remove_label_values(&["1"]);
        gauges.remove_label_values(&["never there"]);
        assert!(lines(&registry).is_empty(), "a family without children is not shown");
        assert_eq!(gauges.with_label_values(&["1"]).get(), 0.0);
    }
}
