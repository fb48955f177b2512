//! What the machine tells of a process: CPU time, memory; and cores to pin to.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The core of the proxy that is measured.
pub const PROXY_CORE: usize = 0;
/// The core of everything else.
pub const OTHER_CORE: usize = 1;

/// Keeps this thread, and those it starts, on one core; where there is but one, that is no news.
pub fn pin(core: usize) {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    let _ = rustix::thread::sched_setaffinity(None, &cores);
}

/// A command pinned to a core.
pub fn pinned(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

/// A runtime of one thread.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Seconds that all threads of a process have spent on a core: the scheduler's count, which a noisy
/// neighbour moves far less than it moves elapsed time.
pub fn cpu_seconds(pid: u32) -> f64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    let nanoseconds = |path: &Path| -> Option<f64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    threads.flatten().filter_map(|thread| nanoseconds(&thread.path())).sum::<f64>() / 1e9
}

/// Resident memory in KiB.
pub fn rss_kib(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0.0)
}

/// The most memory that was ever resident, in KiB.
pub fn most_rss_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0.0)
}

/// How much of a core a process uses in the time to come, in percent.
pub fn cpu_share(pid: u32, time: Duration) -> f64 {
    let before = cpu_seconds(pid);
    std::thread::sleep(time);
    (cpu_seconds(pid) - before) / time.as_secs_f64() * 100.0
}
