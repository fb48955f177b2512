//! The standard `process_*` metrics, read from /proc when somebody looks. Where there is no /proc
//! there are none.

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Error, Gauge};
use rustix::process::{Resource, getrlimit};

/// What a client library of Prometheus reports for "no limit".
const UNLIMITED: u64 = u64::MAX;

/// The collector of them.
pub struct Process {
    cpu: Counter,
    /// Two who look at once must not both add the same CPU time.
    adding: Mutex<()>,
    open_fds: Gauge,
    max_fds: Gauge,
    virtual_memory: Gauge,
    max_virtual_memory: Gauge,
    resident_memory: Gauge,
    /// `None` where it cannot be found: no start time is better than 1970.
    start_time: Option<Gauge>,
}

impl Process {
    /// Makes the metrics, not yet registered.
    pub fn new() -> Result<Self, Error> {
        let gauge = |name: &str, help: &str| Gauge::new(format!("process_{name}"), help);
        // Found once: where the clock is set later, the start does not move.
        let start_time = started_at().map(|seconds| {
            let help = "Start time of the process since unix epoch in seconds.";
            gauge("start_time_seconds", help).inspect(|gauge| gauge.set(seconds))
        });
        Ok(Self {
            cpu: Counter::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
            )?,
            adding: Mutex::new(()),
            open_fds: gauge("open_fds", "Number of open file descriptors.")?,
            max_fds: gauge("max_fds", "Maximum number of open file descriptors.")?,
            virtual_memory: gauge("virtual_memory_bytes", "Virtual memory size in bytes.")?,
            max_virtual_memory: gauge(
                "virtual_memory_max_bytes",
                "Maximum amount of virtual memory available in bytes.",
            )?,
            resident_memory: gauge("resident_memory_bytes", "Resident memory size in bytes.")?,
            start_time: start_time.transpose()?,
        })
    }

    fn gauges(&self) -> impl Iterator<Item = &Gauge> {
        let always = [
            &self.open_fds,
            &self.max_fds,
            &self.virtual_memory,
            &self.max_virtual_memory,
            &self.resident_memory,
        ];
        always.into_iter().chain(&self.start_time)
    }

    fn refresh(&self, stat: &Stat) {
        if let Ok(_adding) = self.adding.lock() {
            // A counter cannot go down, and tells so by a panic in debug builds.
            self.cpu.inc_by((seconds(stat.cpu_ticks) - self.cpu.get()).max(0.0));
        }
        self.open_fds.set(count(fs::read_dir("/proc/self/fd").into_iter().flatten().count()));
        self.max_fds.set(limit(Resource::Nofile));
        self.virtual_memory.set(number(stat.virtual_bytes));
        self.max_virtual_memory.set(limit(Resource::As));
        self.resident_memory.set(number(stat.resident_pages) * count(rustix::param::page_size()));
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = self.gauges().flat_map(Collector::desc);
        self.cpu.desc().into_iter().chain(gauges).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stat = fs::read_to_string("/proc/self/stat").ok();
        let Some(stat) = stat.as_deref().and_then(Stat::parse) else { return Vec::new() };
        self.refresh(&stat);
        let gauges = self.gauges().flat_map(Collector::collect);
        self.cpu.collect().into_iter().chain(gauges).collect()
    }
}

/// The fields of /proc/PID/stat that are used.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    /// The second field is the program's name in brackets and may hold anything, brackets too; so
    /// the fields are counted from behind the last one. See proc(5).
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

/// When the process started, in seconds since the Unix epoch.
///
/// The kernel counts its start from the boot. `btime` of /proc/stat says when that was, but a
/// service with `ProcSubset=pid` does not see that file; the clocks are seen everywhere.
#[cfg(target_os = "linux")]
fn started_at() -> Option<f64> {
    use rustix::time::{ClockId, clock_gettime};
    let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).ok()?;
    let boot = now.checked_sub(since_boot)?;
    Some(boot.as_secs_f64() + seconds(stat.start_ticks))
}

#[cfg(not(target_os = "linux"))]
fn started_at() -> Option<f64> {
    None
}

fn limit(resource: Resource) -> f64 {
    number(getrlimit(resource).current.unwrap_or(UNLIMITED))
}

fn seconds(ticks: u64) -> f64 {
    number(ticks) / number(rustix::param::clock_ticks_per_second())
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are of this type")]
fn number(value: u64) -> f64 {
    value as f64
}

fn count(value: usize) -> f64 {
    number(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_name() {
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
    fn all_seven_are_there() {
        let process = Process::new().unwrap();
        let families = process.collect();
        assert_eq!(families.len(), 7);
        assert!(process.open_fds.get() >= 3.0 && process.resident_memory.get() > 100_000.0);
    }

    /// What the start is computed from must be there under `ProcSubset=pid`, where /proc has only
    /// the folders of processes; `btime` of /proc/stat is what it is compared with here.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_start_time_is_that_of_the_process() {
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")).unwrap();
        let own = Stat::parse(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        let expected = boot.parse::<f64>().unwrap() + seconds(own.start_ticks);
        let found = Process::new().unwrap().start_time.unwrap().get();
        assert!((found - expected).abs() < 2.0, "{found} where {expected} is expected");
    }
}
