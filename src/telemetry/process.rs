//! The standard `process_*` metrics, read from /proc at each scrape. Without /proc there are none.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Error, Gauge};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// The value that Prometheus client libraries report for "no limit".
const UNLIMITED: u64 = u64::MAX;

/// The file with the figures of this process (proc(5)).
const STAT: &str = "/proc/self/stat";

/// Computes the value of a gauge.
type Value = fn(&Stat) -> f64;

/// The collector of the `process_*` metrics.
pub struct ProcessCollector {
    cpu: Counter,
    /// Held while the counter is updated, so that two scrapes at once do not add the same time twice.
    update: Mutex<()>,
    /// /proc/self/stat, kept open: the shortage of descriptors is seen in these metrics too.
    stat: Option<File>,
    /// Each gauge with the function that computes its value.
    gauges: Vec<(Gauge, Value)>,
    /// `None` if it cannot be computed: no start time is better than 1970.
    start_time: Option<Gauge>,
}

/// Name, help text and value of each gauge.
const GAUGES: [(&str, &str, Value); 5] = [
    ("process_open_fds", "Number of open file descriptors.", |_| open_descriptors()),
    ("process_max_fds", "Maximum number of open file descriptors.", |_| limit(Resource::Nofile)),
    ("process_virtual_memory_bytes", "Virtual memory size in bytes.", |stat| {
        to_f64(stat.virtual_bytes)
    }),
    (
        "process_virtual_memory_max_bytes",
        "Maximum amount of virtual memory available in bytes.",
        |_| limit(Resource::As),
    ),
    ("process_resident_memory_bytes", "Resident memory size in bytes.", |stat| {
        to_f64(stat.resident_pages) * to_f64(rustix::param::page_size() as u64)
    }),
];

impl ProcessCollector {
    /// Makes the metrics without registering them.
    pub fn new() -> Result<Self, Error> {
        let help = "Total user and system CPU time spent in seconds.";
        let cpu = Counter::new("process_cpu_seconds_total", help)?;
        let gauge = |(name, help, value)| Ok((Gauge::new(name, help)?, value));
        let gauges = GAUGES.into_iter().map(gauge).collect::<Result<_, Error>>()?;
        // Computed once: if the clock is set later, the start does not move.
        let start_time = started_at().map(|seconds| {
            let help = "Start time of the process since unix epoch in seconds.";
            Gauge::new("process_start_time_seconds", help).inspect(|gauge| gauge.set(seconds))
        });
        let (stat, update) = (File::open(STAT).ok(), Mutex::new(()));
        Ok(Self { cpu, update, stat, gauges, start_time: start_time.transpose()? })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = self.gauges.iter().map(|(gauge, _)| gauge).chain(&self.start_time);
        self.cpu.desc().into_iter().chain(gauges.flat_map(Collector::desc)).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(stat) = self.stat.as_ref().and_then(Stat::read_again) else { return Vec::new() };
        if let Ok(_guard) = self.update.lock() {
            // A negative increment would panic in debug builds.
            self.cpu.inc_by((seconds(stat.cpu_ticks) - self.cpu.get()).max(0.0));
        }
        let mut families = self.cpu.collect();
        for (gauge, value) in &self.gauges {
            gauge.set(value(&stat));
            families.extend(gauge.collect());
        }
        families.extend(self.start_time.iter().flat_map(Collector::collect));
        families
    }
}

/// The used fields of /proc/PID/stat (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string(STAT).ok()?)
    }

    /// Reads the file from its start, as it is now. The fields take far less room than there is here.
    fn read_again(file: &File) -> Option<Self> {
        let mut text = [0; 2048];
        let length = file.read_at(&mut text, 0).ok()?;
        Self::parse(std::str::from_utf8(&text[..length]).ok()?)
    }

    /// The second field is the program's name in brackets, which may itself hold brackets and spaces.
    /// The fields are therefore counted from the last closing bracket.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// The start of the process in seconds since the Unix epoch.
///
/// The kernel counts the start from the boot. `btime` of /proc/stat is the time of the boot, but a service
/// with `ProcSubset=pid` does not see that file; the clocks are visible everywhere.
#[cfg(target_os = "linux")]
fn started_at() -> Option<f64> {
    use rustix::time::{ClockId, clock_gettime};
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).ok()?;
    let boot = now.checked_sub(since_boot)?;
    Some(boot.as_secs_f64() + seconds(Stat::read()?.start_ticks))
}

#[cfg(not(target_os = "linux"))]
fn started_at() -> Option<f64> {
    None
}

/// To count them takes one; where there is none, all are open.
fn open_descriptors() -> f64 {
    match fs::read_dir("/proc/self/fd") {
        Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
            limit(Resource::Nofile)
        }
        entries => to_f64(entries.into_iter().flatten().count() as u64),
    }
}

fn limit(resource: Resource) -> f64 {
    to_f64(getrlimit(resource).current.unwrap_or(UNLIMITED))
}

fn seconds(ticks: u64) -> f64 {
    to_f64(ticks) / to_f64(rustix::param::clock_ticks_per_second())
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are of this type")]
fn to_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_the_end_of_the_name() {
        let tail =
            "S 1 2 3 4 5 6 7 8 9 10 300 45 0 0 20 0 1 0 777 1000000 250 18446744073709551615";
        let expected = Stat {
            cpu_ticks: 345,
            start_ticks: 777,
            virtual_bytes: 1_000_000,
            resident_pages: 250,
        };
        for name in ["bearer-proxy", "a) R 1", "(x)"] {
            assert_eq!(Stat::parse(&format!("42 ({name}) {tail}")).as_ref(), Some(&expected));
        }
        assert_eq!(Stat::parse("42 (x) S 1 2"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn all_metrics_are_exported() {
        let process = ProcessCollector::new().unwrap();
        let families = process.collect();
        assert_eq!(families.len(), 7);
        let gauge = |index: usize| process.gauges[index].0.get();
        assert!(gauge(0) >= 3.0 && gauge(4) > 100_000.0);
    }

    /// The program does not read `btime` of /proc/stat, which is hidden under `ProcSubset=pid`; here the
    /// result is compared with it.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_start_time_is_that_of_the_process() {
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")).unwrap();
        let own = Stat::parse(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        let expected = boot.parse::<f64>().unwrap() + seconds(own.start_ticks);
        let found = ProcessCollector::new().unwrap().start_time.unwrap().get();
        assert!((found - expected).abs() < 2.0, "{found} where {expected} is expected");
    }
}
