//! Sides that take turns: a process each, one run of each, then the next of each.
//!
//! A side reads a line of JSON, a [`Request`], on standard input and answers with a line of JSON: [`Answer::Ready`], or
//! [`Answer::Error`] with a reason. Then for each line `run N` it does the work N times and answers with the milliseconds of one,
//! and for a line `memory` with its peak. It ends when its input does. Sides of [`measure_gpu`](crate::measure_gpu) take another
//! request too, which replaces the former.
use crate::{BenchError, Case};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// The longest that anybody may take to get ready; `torch.compile` takes minutes.
const PATIENCE: Duration = Duration::from_secs(600);
/// Runs before any counts.
const WARM_UP: usize = 2;
/// A turn takes at least so long, so that short runs are repeated.
const TURN_MS: f64 = 40.0;
const MOST_REPEATS: f64 = 2000.0;

/// What a side is told to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The side's name: which of several ways to compute.
    pub side: String,
    /// The work.
    pub case: Case,
    /// What weights and inputs are drawn from.
    pub seed: u64,
    /// The `.safetensors` of weights, images, labels and logits: ours is written, others read it.
    pub shared: PathBuf,
    /// The name of the network in torchvision, if it has it.
    pub torchvision: Option<String>,
    /// What losses of auxiliary outputs count.
    pub aux_weight: f64,
}

/// What a side says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It can begin.
    Ready {
        /// How far its logits are from ours, relative to the largest; nothing where there are none.
        distance: Option<f64>,
        /// Names and versions of what it computes with.
        #[serde(default)]
        versions: std::collections::BTreeMap<String, String>,
        /// What one run comes to; only our side tells.
        #[serde(default)]
        size: crate::record::Size,
    },
    /// Milliseconds of one run.
    Ms(f64),
    /// Peak resident memory in MiB: above what there was before the first pass, and of the whole process.
    Memory(Option<[f64; 2]>),
    /// It cannot.
    Error(String),
}

/// A process that takes turns.
#[derive(Debug)]
pub struct Side {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
    complaints: PathBuf,
}

impl Side {
    /// Starts one; what it writes to standard error goes into a file below `folder`.
    pub fn start(name: &str, mut command: Command, folder: &std::path::Path) -> Result<Self, BenchError> {
        let complaints = folder.join(format!("{name}.log"));
        let log = File::create(&complaints).map_err(BenchError::io(format!("write {}", complaints.display())))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(BenchError::io(format!("run {}", command.get_program().display())))?;
        let input = child.stdin.take();
        let (send, answers) = channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        }
        Ok(Self { name: name.to_owned(), child, input, answers, complaints })
    }

    /// Whether its process still runs, so that it can take another case.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a line and waits for the answer.
    ///
    /// # Errors
    ///
    /// In one line: what the side says, or the last of what it wrote to standard error.
    fn ask(&mut self, line: &str) -> Result<Answer, String> {
        let sent = self.input.as_mut().is_some_and(|input| writeln!(input, "{line}").and_then(|()| input.flush()).is_ok());
        let answer = if sent { self.answers.recv_timeout(PATIENCE).ok() } else { None };
        let Some(answer) = answer else { return Err(self.last_words()) };
        match serde_json::from_str(&answer) {
            Ok(Answer::Error(reason)) => Err(reason),
            Ok(answer) => Ok(answer),
            Err(_) => Err(format!("it answered `{}`", answer.chars().take(80).collect::<String>())),
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.complaints).unwrap_or_default();
        text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it ended, or did not answer").trim().to_owned()
    }

    /// Has it get ready.
    ///
    /// # Errors
    ///
    /// Its reason, in one line.
    pub(crate) fn prepare(&mut self, request: &Request) -> Result<Answer, String> {
        let line = serde_json::to_string(request).map_err(|error| error.to_string())?;
        match self.ask(&line)? {
            ready @ Answer::Ready { .. } => Ok(ready),
            other => Err(format!("it answered {other:?} when it should get ready")),
        }
    }

    fn run(&mut self, repeats: usize) -> Result<f64, String> {
        match self.ask(&format!("run {repeats}"))? {
            Answer::Ms(ms) if ms.is_finite() && ms > 0.0 => Ok(ms),
            other => Err(format!("it answered {other:?} to a run")),
        }
    }

    fn memory(&mut self) -> Option<[f64; 2]> {
        match self.ask("memory") {
            Ok(Answer::Memory(memory)) => memory,
            _ => None,
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        drop(self.input.take());
        // It has nothing more to do; one that hangs is not waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came of a side.
#[derive(Debug)]
pub struct Turns {
    /// The side's name.
    pub side: String,
    /// What it said when it was ready.
    pub ready: Option<Answer>,
    /// Milliseconds round by round, or why there are none.
    pub ms: Result<Vec<f64>, String>,
    /// Its peak memory.
    pub memory: Option<[f64; 2]>,
}

/// Gets all sides ready, one after the other, and lets them run in turns: the first, the second, ..., and again the first. A side
/// whose logits are further than `tolerance` from ours, or that fails, takes no further part.
pub fn take_turns(sides: &mut [Side], request: &Request, rounds: usize, tolerance: f64) -> Vec<Turns> {
    let mut taking: Vec<(&mut Side, Turns, usize)> = Vec::new();
    let mut done = Vec::new();
    for side in sides {
        let ready = side.prepare(&Request { side: side.name.clone(), ..request.clone() }).and_then(|ready| match ready {
            Answer::Ready { distance: Some(distance), .. } if distance.is_nan() || distance > tolerance => {
                Err(format!("its logits differ by {distance:.1e} of the largest, and {tolerance:.0e} is allowed"))
            }
            ready => Ok(ready),
        });
        let turns = |ready, ms| Turns { side: side.name.clone(), ready, ms, memory: None };
        match ready {
            Ok(ready) => {
                let turns = turns(Some(ready), Ok(Vec::new()));
                taking.push((side, turns, 1));
            }
            Err(reason) => done.push(turns(None, Err(reason))),
        }
    }
    for round in 0..WARM_UP + rounds {
        for (side, turns, repeats) in &mut taking {
            let Ok(times) = &mut turns.ms else { continue };
            match side.run(*repeats) {
                Ok(ms) if round < WARM_UP => *repeats = (TURN_MS / ms).ceil().clamp(1.0, MOST_REPEATS) as usize,
                Ok(ms) => times.push(ms),
                Err(reason) => turns.ms = Err(reason),
            }
        }
    }
    for (side, turns, _) in taking {
        let memory = if turns.ms.is_ok() { side.memory() } else { None };
        done.push(Turns { memory, ..turns });
    }
    done
}

/// Our own side: reads and answers as the others do.
pub fn serve(input: impl BufRead, mut output: impl Write) -> Result<(), BenchError> {
    let mut lines = input.lines().map_while(Result::ok);
    let mut say = |answer: &Answer| -> Result<(), BenchError> {
        let line = serde_json::to_string(answer).map_err(|error| BenchError::Failed(error.to_string()))?;
        writeln!(output, "{line}").and_then(|()| output.flush()).map_err(BenchError::io("answer"))
    };
    let Some(line) = lines.next() else { return Ok(()) };
    let request: Request = serde_json::from_str(&line).map_err(|error| BenchError::Usage(format!("a request: {error}")))?;
    let mut work = match crate::Work::prepare(&request.case, request.seed, Some(&request.shared)) {
        Ok(work) => work,
        Err(error) => return say(&Answer::Error(error.to_string())),
    };
    let size = crate::record::Size { images: work.images, flops: work.flops };
    say(&Answer::Ready { distance: work.distance, versions: Default::default(), size })?;
    for line in lines {
        if line == "memory" {
            say(&Answer::Memory(work.peak()))?;
            continue;
        }
        let repeats: usize = line.strip_prefix("run ").and_then(|repeats| repeats.parse().ok()).unwrap_or(1);
        let start = std::time::Instant::now();
        let ran = work.run_times(repeats);
        let ms = 1e3 * start.elapsed().as_secs_f64() / repeats as f64;
        say(&ran.map_or_else(|error| Answer::Error(error.to_string()), |()| Answer::Ms(ms)))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Mode;

    fn request(folder: &std::path::Path) -> Request {
        Request {
            side: String::new(),
            case: Case::of("lenet5", Mode::Plan, 1, 1),
            seed: 1,
            shared: folder.join("shared.safetensors"),
            torchvision: None,
            aux_weight: 0.0,
        }
    }

    /// A peer that writes its name into a file at each turn.
    fn fake(name: &str, folder: &std::path::Path, script: &str) -> Side {
        let mut command = Command::new("sh");
        command.args(["-c", script, name]).current_dir(folder);
        Side::start(name, command, folder).unwrap()
    }

    const GOOD: &str = r#"read request; echo '{"ready":{"distance":1e-6,"versions":{"fake":"1"}}}'
        while read -r order count; do case $order in
            run) echo "$0 $count" >> turns; echo '{"ms":20.0}';;
            memory) echo '{"memory":[1.0,2.0]}';;
        esac; done"#;

    #[test]
    fn sides_run_in_turns_and_short_runs_are_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let mut sides = vec![fake("a", folder.path(), GOOD), fake("b", folder.path(), GOOD)];
        let turns = take_turns(&mut sides, &request(folder.path()), 2, 1e-3);
        assert_eq!(turns.iter().map(|turns| turns.ms.clone().unwrap()).collect::<Vec<_>>(), [[20.0, 20.0], [20.0, 20.0]]);
        assert!(turns.iter().all(|turns| turns.memory == Some([1.0, 2.0])));
        let order = fs::read_to_string(folder.path().join("turns")).unwrap();
        assert_eq!(order.lines().collect::<Vec<_>>(), ["a 1", "b 1", "a 2", "b 2", "a 2", "b 2", "a 2", "b 2"]);
    }

    #[test]
    fn a_side_that_cannot_is_told_of_and_the_others_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut sides = vec![
            fake("far", folder.path(), r#"read r; echo '{"ready":{"distance":0.5}}'"#),
            fake("nan", folder.path(), r#"read r; echo '{"ready":{"distance":null}}'; read r; echo '{"ms":-1}'; read r"#),
            fake("dies", folder.path(), "echo first >&2; echo No module named torch >&2; exit 1"),
            fake("refuses", folder.path(), r#"read r; echo '{"error":"no such network"}'; read r"#),
            fake("good", folder.path(), GOOD),
        ];
        let turns = take_turns(&mut sides, &request(folder.path()), 3, 1e-3);
        let of = |name: &str| turns.iter().find(|turns| turns.side == name).unwrap().ms.clone();
        assert!(of("far").unwrap_err().contains("differ by 5.0e-1"));
        assert!(of("nan").unwrap_err().contains("to a run"));
        assert_eq!(of("dies").unwrap_err(), "No module named torch");
        assert_eq!(of("refuses").unwrap_err(), "no such network");
        assert_eq!(of("good").unwrap(), [20.0; 3]);
    }

    #[test]
    fn our_own_side_answers_and_shares_its_weights() {
        let folder = tempfile::tempdir().unwrap();
        let request = request(folder.path());
        let input = format!("{}\nrun 2\nmemory\n", serde_json::to_string(&request).unwrap());
        let mut output = Vec::new();
        serve(input.as_bytes(), &mut output).unwrap();
        let answers: Vec<Answer> =
            String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [Answer::Ready { distance: Some(distance), size, .. }, Answer::Ms(ms), Answer::Memory(_)] = &answers[..] else {
            panic!("{answers:?}")
        };
        assert!(*distance < 1e-4 && *ms > 0.0 && size.images == Some(1));
        let shared = striate_torch::TensorFile::read(&request.shared).unwrap();
        assert_eq!(shared.tensors["bench.images"].size(), [1, 1, 32, 32]);
        assert_eq!(shared.tensors["bench.logits"].size(), [1, 10]);
        assert!(shared.tensors.len() > 10);
    }
}
