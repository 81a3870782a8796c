use std::process::Command;

/// Processor, cores, kernel, and how busy it was when we started: what a figure means nothing without.
pub(crate) fn describe() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    let extension = if info.contains("sha_ni") { "SHA extensions" } else { "no SHA extensions" };
    let build = if cfg!(debug_assertions) { ", NOT OPTIMISED" } else { "" };
    format!("{model}, {cores} cores, {extension}, Linux {}{build}; load {load} at the start", kernel.trim())
}

/// The commit that is measured.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output();
        output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = if git(&["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { " and changes" };
    format!("{}{changed}", git(&["rev-parse", "--short=12", "HEAD"]))
}

/// Seconds of processor time that this thread has had.
pub(crate) fn processor_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
