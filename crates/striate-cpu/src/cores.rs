//! How many threads run at once.
use std::fmt;

/// Processors that this process may use, and what limits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cores {
    /// Those of the machine.
    pub online: usize,
    /// Those among them that the process's affinity allows.
    pub allowed: usize,
    /// Threads that run at once: as many as `allowed`, or fewer if a control group has a quota. Of a quota of 1.5 processors, one.
    pub usable: usize,
}

impl Cores {
    /// As it is now. Outside of Linux, all are those that the system gives a process.
    pub fn found() -> Self {
        // It reads the affinity, and the quotas of control groups of both versions and of the groups above.
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        let [online, allowed] = [online.as_str(), allowed].map(count);
        let allowed = allowed.unwrap_or(usable).max(usable);
        Self { online: online.unwrap_or(allowed).max(allowed), allowed, usable }
    }
}

/// What is taken, of how many, and why.
impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { online, allowed, usable } = *self;
        write!(f, "{usable} of {online}")?;
        match (usable < allowed, allowed < online) {
            (true, false) => f.write_str(", by the control group's quota"),
            (true, true) => write!(f, ", by the control group's quota (the affinity allows {allowed})"),
            (false, true) => f.write_str(", by the process's affinity"),
            (false, false) => Ok(()),
        }
    }
}

/// The numbers in a list such as `0-3,8`.
fn count(list: &str) -> Option<usize> {
    list.trim().split(',').try_fold(0, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(sum + last.checked_sub(first)? + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted() {
        let of = ["0", "0-1\n", "\t0-3,8,10-11", "", "1-0", "all"].map(count);
        assert_eq!(of, [Some(1), Some(2), Some(7), None, None, None]);
    }

    #[test]
    fn what_limits_is_told() {
        let told = |online, allowed, usable| Cores { online, allowed, usable }.to_string();
        assert_eq!(told(2, 2, 2), "2 of 2");
        assert_eq!(told(64, 8, 8), "8 of 64, by the process's affinity");
        assert_eq!(told(64, 64, 2), "2 of 64, by the control group's quota");
        assert_eq!(told(64, 8, 2), "2 of 64, by the control group's quota (the affinity allows 8)");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_affinity_counts() {
        const INNER: &str = "STRIATE_TEST_ONE_CORE";
        if std::env::var_os(INNER).is_some() {
            let Cores { allowed, usable, .. } = Cores::found();
            assert_eq!((allowed, usable), (1, 1));
            return;
        }
        // `taskset` is part of util-linux. It takes the first of the processors that this process may use.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        let first = list.trim().split([',', '-']).next().unwrap_or_default();
        let mut command = std::process::Command::new("taskset");
        command.args(["-c", first]).arg(std::env::current_exe().unwrap_or_default()).arg("the_affinity_counts").env(INNER, "");
        let output =
            command.output().map(|output| (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()));
        assert!(output.as_ref().is_ok_and(|(success, text)| *success && text.contains("1 passed")), "{output:?}");
    }
}
