//! Processes that a benchmark starts, and what they took.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Ticks of `/proc/PID/stat` in a second.
const TICKS: f64 = 100.0;

/// The program that runs.
pub fn this() -> String {
    std::env::current_exe().unwrap().to_string_lossy().into_owned()
}

/// A command on one core.
pub fn pinned(core: &str, command: &[&str]) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", core]).args(command);
    pinned
}

/// What a process took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    /// Seconds of processor time.
    pub cpu: f64,
    /// The most memory that it had, in kilobytes.
    pub memory: f64,
}

/// What a process took so far, and whether it ended. A process that ended keeps its times until it is waited for.
pub fn took(process: &str) -> (Took, bool) {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let cpu = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS;
    (Took { cpu, memory: peak_memory(process).unwrap_or(0.0) }, fields[0] == "Z")
}

/// The most memory that a process had, in kilobytes; `None` once it ended.
pub fn peak_memory(process: &str) -> Option<f64> {
    memory(process, "VmHWM:")
}

/// The memory that a process has, in kilobytes; `None` once it ended.
pub fn resident_memory(process: &str) -> Option<f64> {
    memory(process, "VmRSS:")
}

fn memory(process: &str, field: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Waits for a process; returns what it took and what it printed.
pub fn watch(mut child: Child) -> (Took, String) {
    let id = child.id().to_string();
    let mut most = Took::default();
    loop {
        let (now, ended) = took(&id);
        most = Took { cpu: now.cpu, memory: most.memory.max(now.memory) };
        if ended {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    child.wait().unwrap();
    (most, output)
}

/// A server on a core of its own, until it is dropped.
pub struct Served {
    process: Child,
    /// The first line that it printed.
    pub greeting: String,
}

impl Served {
    /// Starts this program with `arguments` on the second core, and reads what it prints first.
    pub fn start(arguments: &[&str]) -> Self {
        let this = this();
        let command: Vec<&str> = std::iter::once(this.as_str()).chain(arguments.iter().copied()).collect();
        let mut process =
            pinned("1", &command).stdout(Stdio::piped()).spawn().expect("taskset (util-linux) runs");
        let mut greeting = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut greeting).unwrap();
        Served { process, greeting: greeting.trim().to_owned() }
    }

    /// What it took so far.
    pub fn took(&self) -> Took {
        took(&self.process.id().to_string()).0
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The middle one.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
