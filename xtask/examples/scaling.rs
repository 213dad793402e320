//! How the time of a training step grows with the number of processes: a small simulator; docs/scaling.md says what it found.
//!
//! `cargo run --example scaling` prints a table; `cargo run --example scaling -- compute=563 megabytes=46.8 gigabits=1 latency=1`
//! one for other figures.

use std::process::ExitCode;

/// What a step is made of. Times are in seconds, sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Setup {
    /// Forward and backward pass and update of a process alone.
    compute: f64,
    /// What part of that the backward pass is.
    backward: f64,
    /// All gradients.
    bytes: f64,
    /// Gradients in a bucket, and in the first.
    bucket: f64,
    first_bucket: f64,
    /// From one host to the next, one way.
    latency: f64,
    /// Bytes a second.
    bandwidth: f64,
    /// How a bucket is summed.
    algorithm: Algorithm,
    /// What a process is late by in a step: the mean of an exponential distribution, as a share of `compute`.
    jitter: f64,
    /// What one process reads for a step, and what all can read in a second.
    input: f64,
    storage: f64,
    /// A checkpoint that rank 0 writes: its size, what the disk takes in a second, and the steps between two.
    checkpoint: f64,
    disk: f64,
    steps_between: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Algorithm {
    /// Gloo's, and NCCL's on few hosts.
    Ring,
    /// NCCL's on many.
    Tree,
}

/// ResNet-18 with 8 pictures on one thread of a CPU, in a network of 1 Gbit/s: two processes of it are measured.
const CPU: Setup = Setup {
    compute: 0.563,
    backward: 2.0 / 3.0,
    bytes: 46.8e6,
    bucket: 25.0 * MIB,
    first_bucket: MIB,
    latency: 1e-3,
    bandwidth: 125e6,
    algorithm: Algorithm::Ring,
    jitter: 0.02,
    input: 8.0 * 110e3,
    storage: 1e9,
    checkpoint: 2.0 * 46.8e6,
    disk: 200e6,
    steps_between: 1000.0,
};

/// ResNet-50 with 32 pictures on a P100 in servers of 8, as in Goyal et al. (2017): 100 MB of gradients, a backward pass of 120 ms,
/// 50 Gbit/s between servers. The jitter is what makes 90% of 256 GPUs.
const GPU: Setup = Setup {
    compute: 0.18,
    bytes: 100e6,
    latency: 20e-6,
    bandwidth: 6.25e9,
    jitter: 0.017,
    input: 32.0 * 110e3,
    storage: 20e9,
    checkpoint: 200e6,
    disk: 1e9,
    ..CPU
};

const MIB: f64 = 1_048_576.0;
/// Steps that are simulated.
const STEPS: usize = 200;

impl Setup {
    /// Seconds in which `processes` sum so many bytes.
    fn all_reduce(&self, processes: usize, bytes: f64) -> f64 {
        let n = processes as f64;
        match self.algorithm {
            _ if processes < 2 => 0.0,
            Algorithm::Ring => 2.0 * (n - 1.0) * (self.latency + bytes / n / self.bandwidth),
            Algorithm::Tree => 2.0 * n.log2().ceil() * self.latency + 2.0 * bytes / self.bandwidth,
        }
    }

    /// Sizes of buckets, in the order in which the backward pass fills them.
    fn buckets(&self) -> Vec<f64> {
        let (mut left, mut sizes) = (self.bytes, Vec::new());
        while left > 0.0 {
            let size = if sizes.is_empty() { self.first_bucket } else { self.bucket }.min(left);
            left -= size;
            sizes.push(size);
        }
        sizes
    }

    /// Seconds of a step in which process `i` is late by `late[i]`: a bucket is summed once all have filled it and the one before is
    /// summed.
    fn step(&self, late: &[f64]) -> f64 {
        let slowest = self.compute + late.iter().copied().fold(0.0, f64::max);
        let (begin, mut filled, mut summed) = (slowest * (1.0 - self.backward), 0.0, 0.0_f64);
        for size in self.buckets() {
            filled += size;
            let ready = begin + slowest * self.backward * filled / self.bytes;
            summed = summed.max(ready) + self.all_reduce(late.len(), size);
        }
        // Loss, hits and requests to stop go round once a step.
        let figures = (late.len() as f64 - 1.0) * self.latency;
        let loaded = self.input * late.len() as f64 / self.storage;
        (summed.max(slowest) + figures).max(loaded) + self.checkpoint / self.disk / self.steps_between
    }

    /// The mean seconds of a step.
    fn mean_step(&self, processes: usize) -> f64 {
        let mut random = Random(processes as u64);
        let step = |_| {
            let late: Vec<f64> = (0..processes).map(|_| self.jitter * self.compute * random.exponential()).collect();
            self.step(&late)
        };
        (0..STEPS).map(step).sum::<f64>() / STEPS as f64
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// Of a mean of 1.
    fn exponential(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        -(1.0 - unit).ln()
    }
}

fn table(name: &str, setup: &Setup) -> String {
    let alone = setup.mean_step(1);
    let mut text = format!("{name}\nprocesses  step, ms  efficiency\n");
    for processes in (0..=12).map(|power| 1_usize << power) {
        let step = setup.mean_step(processes);
        text += &format!("{processes:9}  {:8.1}  {:9.1}%\n", 1e3 * step, 100.0 * alone / step);
    }
    text
}

/// The setup with what the arguments say, such as `latency=0.1`: milliseconds, megabytes and gigabits a second.
fn changed(mut setup: Setup, args: &[String]) -> Result<Setup, String> {
    for arg in args {
        let wrong = || format!("{arg}: give compute=MS, megabytes=N, gigabits=N, latency=MS, jitter=PERCENT, or tree");
        if arg == "tree" {
            setup.algorithm = Algorithm::Tree;
            continue;
        }
        let (name, value) = arg.split_once('=').ok_or_else(wrong)?;
        let value: f64 = value.parse().map_err(|_| wrong())?;
        match name {
            "compute" => setup.compute = value / 1e3,
            "megabytes" => setup.bytes = value * 1e6,
            "gigabits" => setup.bandwidth = value * 1e9 / 8.0,
            "latency" => setup.latency = value / 1e3,
            "jitter" => setup.jitter = value / 1e2,
            _ => return Err(wrong()),
        }
    }
    Ok(setup)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() {
        println!("{}\n{}", table("ResNet-18, CPU, 1 Gbit/s", &CPU), table("ResNet-50, P100, 50 Gbit/s", &GPU));
        return ExitCode::SUCCESS;
    }
    match changed(CPU, &args) {
        Ok(setup) => {
            println!("{}", table("your figures", &setup));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing but compute and gradients.
    const BARE: Setup = Setup { jitter: 0.0, input: 0.0, checkpoint: 0.0, ..CPU };

    fn near(a: f64, b: f64, within: f64) {
        assert!((a - b).abs() <= within * b.abs(), "{a} is not {b}");
    }

    #[test]
    fn a_ring_takes_what_the_formula_says() {
        // Patarasuk and Yuan 2009: 2 (n - 1) / n of the bytes over each link, in 2 (n - 1) rounds.
        let setup = Setup { latency: 0.0, bandwidth: 100.0, ..BARE };
        near(setup.all_reduce(2, 1000.0), 10.0, 1e-12);
        near(setup.all_reduce(4, 1000.0), 15.0, 1e-12);
        near(Setup { latency: 0.5, ..setup }.all_reduce(4, 1000.0), 18.0, 1e-12);
        assert_eq!(setup.all_reduce(1, 1000.0), 0.0);
        let tree = Setup { algorithm: Algorithm::Tree, latency: 0.5, ..setup };
        near(tree.all_reduce(1024, 1000.0), 10.0 + 20.0, 1e-12);
    }

    #[test]
    fn buckets_hold_all_gradients() {
        // 47 MB: 1 MiB, 25 MiB, and the rest.
        let sizes = BARE.buckets();
        assert_eq!(sizes.len(), 3);
        near(sizes.iter().sum(), 46.8e6, 1e-12);
        near(sizes[2], 46.8e6 - 26.0 * MIB, 1e-12);
    }

    #[test]
    fn only_what_outlasts_the_backward_pass_is_waited_for() {
        let figures = |n: f64| (n - 1.0) * BARE.latency;
        // On a fast network: the last bucket, which is ready when the backward pass ends.
        let fast = Setup { bandwidth: 1e10, ..BARE };
        let last = fast.all_reduce(2, 46.8e6 - 26.0 * MIB);
        near(fast.step(&[0.0; 2]), fast.compute + last + figures(2.0), 1e-12);
        // On a slow one: all, from the time the first is ready.
        let slow = Setup { bandwidth: 1e6, ..BARE };
        let first = slow.compute * (1.0 - slow.backward + slow.backward * MIB / 46.8e6);
        let sums: f64 = slow.buckets().iter().map(|size| slow.all_reduce(2, *size)).sum();
        near(slow.step(&[0.0; 2]), first + sums + figures(2.0), 1e-12);
        near(slow.step(&[0.0]), slow.compute, 1e-12);
    }

    #[test]
    fn the_slowest_of_many_is_late_by_the_harmonic_number() {
        // The mean of the largest of n exponentials is 1 + 1/2 + ... + 1/n.
        let setup = Setup { latency: 0.0, bandwidth: f64::INFINITY, jitter: 0.1, ..BARE };
        for n in [1, 16, 256] {
            let harmonic: f64 = (1..=n).map(|k| 1.0 / f64::from(k)).sum();
            near(setup.mean_step(n as usize), setup.compute * (1.0 + 0.1 * harmonic), 0.02);
        }
    }

    #[test]
    fn storage_and_disk_set_limits_of_their_own() {
        let setup = Setup { latency: 0.0, bandwidth: f64::INFINITY, ..BARE };
        let starved = Setup { input: 1e6, storage: 1e8, ..setup };
        near(starved.step(&[0.0; 500]), 5.0, 1e-12);
        let saving = Setup { checkpoint: 1e9, disk: 1e8, steps_between: 100.0, ..setup };
        near(saving.step(&[0.0]), setup.compute + 0.1, 1e-12);
    }

    #[test]
    fn goyals_256_gpus_reach_nine_tenths() {
        // arXiv:1706.02677, abstract: about 90% from 8 to 256 GPUs.
        let efficiency = GPU.mean_step(8) / GPU.mean_step(256);
        assert!((0.88..0.95).contains(&efficiency), "{efficiency}");
    }

    #[test]
    fn arguments_change_figures() {
        let args = ["compute=100", "megabytes=2", "gigabits=8", "latency=0.5", "jitter=1", "tree"].map(str::to_owned);
        let changed_to =
            Setup { compute: 0.1, bytes: 2e6, bandwidth: 1e9, latency: 5e-4, jitter: 0.01, algorithm: Algorithm::Tree, ..CPU };
        assert_eq!(changed(CPU, &args), Ok(changed_to));
        assert!(changed(CPU, &["speed=1".to_owned()]).is_err());
    }
}
