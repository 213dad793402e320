//! Where a process stands among those that train together, as launchers say it.
use crate::TrainError;

/// The port of the store where nothing else is said: PyTorch's.
const PORT: u16 = 29500;
/// Ports of Slurm's jobs, which may share a machine.
const SLURM_PORTS: std::ops::Range<u64> = 15_000..29_000;

/// Where a process stands among those that train together, and where they meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 0.
    pub rank: usize,
    /// All processes.
    pub size: usize,
    /// Its number on its machine, from 0: that of its GPU.
    pub local_rank: usize,
    /// The machine that keeps the store.
    pub host: String,
    /// The store's port.
    pub port: u16,
    /// Whether whoever started the processes keeps the store. Otherwise rank 0 does.
    pub by_launcher: bool,
    /// How often all were started again.
    pub attempt: u64,
}

impl Place {
    pub(super) fn keeps_store(&self) -> bool {
        self.rank == 0 && !self.by_launcher
    }

    /// What the environment says, by the variables of PyTorch (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR`, `MASTER_PORT`), which
    /// torchrun sets, or by those of Slurm's `srun` or Open MPI. None if it speaks of no process but this one.
    ///
    /// # Errors
    ///
    /// Variables that cannot be, or some without the others.
    pub fn from_env() -> Result<Option<Self>, TrainError> {
        Self::from_variables(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, TrainError> {
        let number = |name: &str| -> Result<Option<u64>, TrainError> {
            let Some(text) = variable(name) else { return Ok(None) };
            let number =
                text.trim().parse().map_err(|_| world(format!("{name}={text} is no number: set it to one, or unset it")))?;
            Ok(Some(number))
        };
        let named = |names: [&str; 3]| -> Result<Option<[u64; 3]>, TrainError> {
            let [rank, size, local] = names;
            match (number(rank)?, number(size)?) {
                (Some(own), Some(all)) => Ok(Some([own, all, number(local)?.unwrap_or(own)])),
                (None, None) => Ok(None),
                (Some(_), None) => Err(world(format!("{rank} is set and {size} is not: set both, or neither"))),
                (None, Some(_)) => Err(world(format!("{size} is set and {rank} is not: set both, or neither"))),
            }
        };
        let of_slurm = number("SLURM_STEP_NUM_TASKS")?.is_some();
        let slurm = || if of_slurm { named(["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"]) } else { Ok(None) };
        let mpi = || named(["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"]);
        let place = match named(["RANK", "WORLD_SIZE", "LOCAL_RANK"])? {
            Some(place) => Some(place),
            None => slurm()?.map_or_else(mpi, |place| Ok(Some(place)))?,
        };
        let Some([rank, size, local_rank]) = place else { return Ok(None) };
        if size == 0 || rank >= size {
            return Err(world(format!(
                "rank {rank} is not among {size} processes: number them from 0 to {}",
                size.saturating_sub(1)
            )));
        }
        if size == 1 {
            return Ok(None);
        }
        let first_host = || variable("SLURM_STEP_NODELIST").filter(|_| of_slurm).map(|list| first_of(&list));
        let alone = number("OMPI_COMM_WORLD_LOCAL_SIZE")? == Some(size);
        let here = || alone.then(|| "127.0.0.1".to_owned());
        let host = variable("MASTER_ADDR").or_else(first_host).or_else(here);
        let host = host.ok_or_else(|| world("MASTER_ADDR is not set: set it to the machine of rank 0".to_owned()))?;
        let job = number("SLURM_JOB_ID")?.filter(|_| of_slurm);
        let of_job = job.map(|job| SLURM_PORTS.start + job % (SLURM_PORTS.end - SLURM_PORTS.start));
        let port = number("MASTER_PORT")?.or(of_job).unwrap_or_else(|| PORT.into());
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| world("MASTER_PORT is no port: set it to a number from 1 to 65535".to_owned()))?;
        let by_launcher = variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
        let usize_of = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Some(Self {
            rank: usize_of(rank),
            size: usize_of(size),
            local_rank: usize_of(local_rank),
            host,
            port,
            by_launcher,
            attempt: number("TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0),
        }))
    }
}

/// The first of Slurm's list of machines: `n[004-007,9],x1` is `n004`.
fn first_of(list: &str) -> String {
    match list.split_once('[') {
        Some((before, within)) if !before.contains(',') => {
            let number: String = within.chars().take_while(char::is_ascii_digit).collect();
            format!("{before}{number}")
        }
        _ => list.split(',').next().unwrap_or(list).to_owned(),
    }
}

pub(super) fn world(reason: String) -> TrainError {
    TrainError::World { reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn place(variables: &str) -> Result<Option<Place>, String> {
        let get = |name: &str| {
            let value = |pair: &str| pair.split_once('=').filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned());
            variables.split_whitespace().find_map(value)
        };
        Place::from_variables(&get).map_err(|error| error.to_string())
    }

    #[test]
    fn launchers_say_who_a_process_is() {
        let expected = |host: &str, port, by_launcher| {
            let host = host.to_owned();
            Ok(Some(Place { rank: 0, size: 2, local_rank: 0, host, port, by_launcher, attempt: 0 }))
        };
        assert_eq!(place(""), Ok(None));
        assert_eq!(place("RANK=0 WORLD_SIZE=1"), Ok(None));
        assert_eq!(place("RANK=0 WORLD_SIZE=2 MASTER_ADDR=a"), expected("a", 29500, false));
        let torchrun = "RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=a MASTER_PORT=5 TORCHELASTIC_USE_AGENT_STORE=True";
        assert_eq!(place(torchrun), expected("a", 5, true));
        let restarted = place(&format!("{torchrun} TORCHELASTIC_RESTART_COUNT=3")).unwrap().unwrap();
        assert_eq!(restarted.attempt, 3);
        let slurm = "SLURM_PROCID=0 SLURM_NTASKS=2 SLURM_LOCALID=0 SLURM_STEP_NODELIST=n[03-04] SLURM_JOB_ID=14001";
        assert_eq!(place(slurm), Ok(None), "a batch script is no step");
        assert_eq!(place(&format!("{slurm} SLURM_STEP_NUM_TASKS=2")), expected("n03", 15001, false));
        let mpi = "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=0";
        assert_eq!(place(&format!("{mpi} OMPI_COMM_WORLD_LOCAL_SIZE=2")), expected("127.0.0.1", 29500, false));
        assert!(place(mpi).unwrap_err().contains("MASTER_ADDR is not set"));
    }

    #[test]
    fn what_launchers_cannot_mean_is_told() {
        for (variables, message) in [
            ("RANK=1", "RANK is set and WORLD_SIZE is not: set both, or neither"),
            ("WORLD_SIZE=2", "WORLD_SIZE is set and RANK is not: set both, or neither"),
            ("RANK=x WORLD_SIZE=2", "RANK=x is no number: set it to one, or unset it"),
            ("RANK=2 WORLD_SIZE=2", "rank 2 is not among 2 processes: number them from 0 to 1"),
            ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=70000", "MASTER_PORT is no port: set it to a number from 1 to 65535"),
        ] {
            assert_eq!(place(variables).unwrap_err(), message);
        }
    }

    #[test]
    fn slurms_lists_have_a_first_machine() {
        for (list, first) in [("n[004-007,9],x1", "n004"), ("a,b[1-2]", "a"), ("one", "one"), ("g[1,3]", "g1")] {
            assert_eq!(first_of(list), first);
        }
    }
}
