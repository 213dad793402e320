//! Whether others use the machine.
use std::fs;
use std::thread::sleep;
use std::time::Duration;

/// Cores that others may use without being noticed in the times.
pub const QUIET: f64 = 0.2;
/// How long is looked: the kernel counts hundredths of a second.
const LOOK: Duration = Duration::from_millis(500);

/// How many cores are in use, this program's aside as long as it does nothing. None where the kernel does not say.
pub fn busy_cores() -> Option<f64> {
    let read = || fs::read_to_string("/proc/stat").ok();
    let before = read()?;
    sleep(LOOK);
    between(&before, &read()?)
}

/// Cores in use between two readings of `/proc/stat`.
fn between(before: &str, after: &str) -> Option<f64> {
    let ([idle_before, all_before], [idle, all]) = (ticks(before)?, ticks(after)?);
    let is_core =
        |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()));
    let cores = after.lines().filter(is_core).count() as f64;
    let passed = all.checked_sub(all_before).filter(|passed| *passed > 0)? as f64;
    Some(cores * (1.0 - idle.checked_sub(idle_before)? as f64 / passed))
}

/// Hundredths of seconds in which cores were idle or waited for a disk, and of all seconds.
fn ticks(stat: &str) -> Option<[u64; 2]> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    // user, nice, system, idle, iowait, irq, softirq, steal; what guests take is in the first two.
    let counts: Vec<u64> = line.split_whitespace().take(8).map(|count| count.parse().ok()).collect::<Option<_>>()?;
    Some([counts.get(3)? + counts.get(4)?, counts.iter().sum()])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn busy_cores_are_those_that_were_not_idle() {
        let stat =
            |user: u64, idle: u64, wait: u64| format!("cpu  {user} 5 5 {idle} {wait} 0 0 0 7 7\ncpu0 1 1\ncpu1 1 1\nintr 1\n");
        // Of two cores in half a second, that is 100 ticks, 60 ticks are one program's.
        let cores = between(&stat(1000, 4000, 10), &stat(1060, 4030, 20)).unwrap();
        assert!((cores - 1.2).abs() < 1e-9, "{cores}");
        assert_eq!(between(&stat(1, 1, 1), &stat(1, 1, 1)), None);
        assert_eq!(between("", "intr 1\n"), None);
    }
}
