//! How much of the machine's memory is in use, for the log and for whoever sizes the next one.

use std::fmt;

/// In KiB, as the kernel tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All that the kernel manages.
    pub total: u64,
    /// What could still be given to programs.
    pub available: u64,
    /// The most that this process had resident.
    pub peak: u64,
}

impl Memory {
    /// As it is now; none where `/proc` does not tell.
    pub fn now() -> Option<Self> {
        let read = |path| std::fs::read_to_string(path).ok();
        let (machine, process) = (read("/proc/meminfo")?, read("/proc/self/status")?);
        Some(Self {
            total: kib(&machine, "MemTotal:")?,
            available: kib(&machine, "MemAvailable:")?,
            peak: kib(&process, "VmHWM:")?,
        })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB of {} KiB available, {} KiB our peak", self.available, self.total, self.peak)
    }
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells() {
        let memory = Memory::now().unwrap();
        assert!(memory.peak > 0 && memory.total > memory.available, "{memory}");
        assert_eq!(kib("MemTotal:     123 kB\n", "MemTotal:"), Some(123));
        assert_eq!(kib("MemTotal:     123\n", "MemTotal:"), None);
    }
}
