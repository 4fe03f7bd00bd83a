//! `coalmine up`, `coalmine status`, `coalmine snapshot`, `coalmine down`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use local::{Local, Options, STATE_FILE, Setup, Snapshot, State};
use testbed::scenario::Loaded;
use tokio::signal::unix::{SignalKind, signal};

use crate::output;

/// The exit code of unusable input.
const UNUSABLE: u8 = 2;
/// How long a detached testbed may take to answer, and a stopped one to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked whether it has.
const GLANCE: Duration = Duration::from_millis(20);
/// The testbed that runs without a file.
const DEFAULT: include_dir::Dir<'_> = include_dir::include_dir!("$CARGO_MANIFEST_DIR/../../fixtures/article");
/// The definitions that its kustomizations refer to.
const DEFINITIONS: include_dir::Dir<'_> = include_dir::include_dir!("$CARGO_MANIFEST_DIR/../crd/manifests");
const DEFAULT_FILE: &str = include_str!("../../../scenarios/testbeds/article.yaml");

/// What is brought up, and how.
#[derive(Debug, Args)]
pub struct UpArguments {
    /// The testbed file, or a scenario, whose steps are then carried out in real time. Without one: the article's
    /// system, on the clusters asm, mesh01 and mesh02.
    #[arg(value_name = "TESTBED.yaml")]
    file: Option<PathBuf>,
    /// Where the kubeconfigs and testbed.json go; a temporary folder unless told.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How many times faster than real time the testbed lives.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = speed)]
    speed: f64,
    /// Workloads to leave out, by name, so that real ones can stand in: flagger,prometheus
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    without: Vec<String>,
    /// The seed of all randomness, instead of the file's own.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Enforce role-based access control.
    #[arg(long)]
    rbac: bool,
    /// Begin with a state that `coalmine snapshot` saved, instead of the testbed file's steps.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Leave the folder behind.
    #[arg(long)]
    keep: bool,
    /// Run in the background; return once everything answers. Needs --dir.
    #[arg(long, requires = "dir")]
    detach: bool,
}

/// Which testbed is meant.
#[derive(Debug, Args)]
pub struct DirArguments {
    /// The folder of the running testbed.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Which testbed is saved, and where.
#[derive(Debug, Args)]
pub struct SnapshotArguments {
    #[command(flatten)]
    testbed: DirArguments,
    /// The file to write.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 && speed <= 10_000.0 => Ok(speed),
        _ => Err("a number above 0 and at most 10000, e.g. 10".to_owned()),
    }
}

/// Runs `coalmine up`.
pub fn up(arguments: &UpArguments) -> ExitCode {
    let done = if arguments.detach { detach(arguments) } else { stay(arguments) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            problems.iter().for_each(|problem| output::problem(problem));
            ExitCode::from(UNUSABLE)
        }
    }
}

fn one(problem: impl ToString) -> Vec<String> {
    vec![problem.to_string()]
}

fn stay(arguments: &UpArguments) -> Result<(), Vec<String>> {
    let (loaded, unpacked) = load(arguments.file.as_deref())?;
    let options = Options {
        speed: arguments.speed,
        without: arguments.without.clone(),
        seed: arguments.seed,
        rbac: arguments.rbac,
        dir: arguments.dir.clone(),
        from: arguments.from.as_deref().map(Snapshot::read).transpose().map_err(one)?,
        keep: arguments.keep,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(one)?;
    let done = runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt()).map_err(one)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(one)?;
        let local = Local::open(&loaded, &options).await.map_err(one)?;
        // Everything has been read.
        drop(unpacked);
        announce(&local.state());
        let told = |done: Result<(), String>| match done {
            Ok(()) => output::note(&format!("{} is set up", local.state().name)),
            Err(why) => output::problem(&format!("{why}; the testbed goes on as it is")),
        };
        tokio::select! { biased;
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
            () = local.stop_requested() => {}
            () = local.live(told) => {}
        }
        output::note("stopping");
        Ok(())
    });
    runtime.shutdown_background();
    done
}

/// Reads a testbed or scenario file; without one, the article's system out of this program.
fn load(file: Option<&Path>) -> Result<(Loaded, Option<Unpacked>), Vec<String>> {
    let problems = |error: testbed::scenario::ScenarioError| error.problems;
    match file {
        Some(file) => {
            let is_scenario = std::fs::read_to_string(file)
                .is_ok_and(|text| text.lines().any(|line| line.trim_end() == "kind: Scenario"));
            let loaded = if is_scenario { Loaded::read(file) } else { Loaded::read_testbed(file) };
            Ok((loaded.map_err(problems)?, None))
        }
        None => {
            let unpacked = Unpacked::create().map_err(one)?;
            let loaded = Loaded::read_testbed(&unpacked.0.join("scenarios/testbeds/article.yaml"))
                .map_err(problems)?;
            Ok((loaded, Some(unpacked)))
        }
    }
}

/// The default testbed's files, while they are read.
struct Unpacked(PathBuf);

impl Unpacked {
    fn create() -> Result<Unpacked, String> {
        let path = std::env::temp_dir().join(format!("coalmine-default-{}", std::process::id()));
        let unpacked = Unpacked(path);
        // As in the repository: the files name one another by relative paths.
        let (fixtures, definitions) = (unpacked.0.join("fixtures"), unpacked.0.join("sim/crd/manifests"));
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(fixtures.join("article"))?;
            DEFAULT.extract(fixtures.join("article"))?;
            std::fs::create_dir_all(&definitions)?;
            DEFINITIONS.extract(&definitions)?;
            let testbeds = unpacked.0.join("scenarios/testbeds");
            std::fs::create_dir_all(&testbeds)?;
            std::fs::write(testbeds.join("article.yaml"), DEFAULT_FILE)
        };
        write().map_err(|error| {
            format!("cannot unpack the default testbed to {}: {error}", unpacked.0.display())
        })?;
        Ok(unpacked)
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn announce(state: &State) {
    output::line(&format!("{} is up (process {})", state.name, state.pid));
    output::line(&format!("  export KUBECONFIG={}", state.kubeconfig));
    for cluster in &state.clusters {
        output::line(&format!("  {:<12} {}", cluster.name, cluster.server));
    }
    for (cluster, dns) in
        state.clusters.iter().filter_map(|cluster| Some((&cluster.name, cluster.dns.as_ref()?)))
    {
        output::line(&format!("  {:<12} {dns} ({cluster})", "dns"));
    }
    for repository in &state.repositories {
        output::line(&format!("  {:<12} {} (in the testbed {})", "git", repository.clone, repository.url));
    }
    for forward in state.addresses.iter().filter(|forward| forward.kind == "Service") {
        output::line(&format!("  {:<12} http://{} {}", forward.cluster, forward.address, forward.name));
    }
    output::line(&format!("  {:<12} {}", "status", state.status));
    match &state.setup {
        Setup::Running => output::line("  the set-up is under way"),
        Setup::Done => {}
        Setup::Failed(why) => output::line(&format!("  the set-up failed: {why}")),
    }
    for problem in &state.problems {
        output::line(&format!("  problem: {problem}"));
    }
}

/// Starts this program again, in the background, and waits until it answers.
fn detach(arguments: &UpArguments) -> Result<(), Vec<String>> {
    let dir = arguments.dir.as_deref().expect("--detach requires --dir");
    std::fs::create_dir_all(dir).map_err(|error| one(format!("cannot create {}: {error}", dir.display())))?;
    let log = dir.join("coalmine.log");
    let file = std::fs::File::create(&log)
        .map_err(|error| one(format!("cannot write {}: {error}", log.display())))?;
    let errors = file.try_clone().map_err(one)?;
    let program = std::env::current_exe().map_err(one)?;
    let rest = std::env::args_os().skip(1).filter(|argument| argument != "--detach");
    // A group of its own: Ctrl-C in this terminal is not meant for it.
    let mut command = Command::new(program);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command
        .args(rest)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .spawn()
        .map_err(|error| one(format!("cannot start in the background: {error}")))?;
    let mut state = None;
    let answered = wait(|| {
        state = read(dir).ok().filter(|state| state.pid == child.id());
        state.is_some() || child.try_wait().is_ok_and(|ended| ended.is_some())
    });
    match state {
        Some(state) => {
            announce(&state);
            Ok(())
        }
        None => {
            let what = if answered { "ended" } else { "does not answer" };
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let _ = child.kill();
            Err(one(format!("the testbed {what}; it said:\n{}", text.trim_end())))
        }
    }
}

fn read(dir: &Path) -> Result<State, String> {
    let file = dir.join(STATE_FILE);
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("no testbed runs in {}: {}: {error}", dir.display(), file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Runs `coalmine status`.
pub fn status(arguments: &DirArguments) -> ExitCode {
    let state = read(&arguments.dir).and_then(|state| match request(&state, "GET", "/status.json") {
        Ok(_) => Ok(state),
        Err(error) => Err(format!(
            "the testbed of {} does not answer (process {}): {error}; if it was killed, remove the folder",
            arguments.dir.display(),
            state.pid
        )),
    });
    match state {
        Ok(state) => {
            announce(&state);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            output::problem(&problem);
            ExitCode::FAILURE
        }
    }
}

/// Runs `coalmine snapshot`.
pub fn snapshot(arguments: &SnapshotArguments) -> ExitCode {
    let file = &arguments.file;
    let saved = read(&arguments.testbed.dir).and_then(|state| {
        let answer = request(&state, "POST", "/snapshot")?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        save(file, body).map_err(|error| format!("cannot write {}: {error}", file.display()))
    });
    match saved {
        Ok(()) => {
            output::line(&format!("saved to {}; it holds the testbed's Secrets", file.display()));
            ExitCode::SUCCESS
        }
        Err(problem) => {
            output::problem(&problem);
            ExitCode::FAILURE
        }
    }
}

/// Writes a file that only its owner can read, whole or not at all.
fn save(file: &Path, text: &str) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&new)?.write_all(text.as_bytes())?;
    std::fs::rename(&new, file)
}

/// Runs `coalmine down`.
pub fn down(arguments: &DirArguments) -> ExitCode {
    let file = arguments.dir.join(STATE_FILE);
    let stopped = read(&arguments.dir).and_then(|state| {
        request(&state, "POST", "/stop").map_err(|error| {
            format!(
                "process {} does not answer: {error}; if it was killed, remove {}",
                state.pid,
                file.display()
            )
        })?;
        let process = PathBuf::from(format!("/proc/{}", state.pid));
        match wait(|| !file.exists() && !process.exists()) {
            true => Ok(state),
            false => Err(format!("process {} has not ended after {} s", state.pid, PATIENCE.as_secs())),
        }
    });
    match stopped {
        Ok(state) => {
            let _ = std::fs::remove_file(arguments.dir.join("coalmine.log"));
            // What others have put into the folder stays.
            let _ = std::fs::remove_dir(&arguments.dir);
            output::line(&format!("{} is down", state.name));
            ExitCode::SUCCESS
        }
        Err(problem) => {
            output::problem(&problem);
            ExitCode::FAILURE
        }
    }
}

/// Waits until something is so; returns whether it came to be.
#[expect(clippy::disallowed_methods, reason = "another process is waited for, in real time")]
fn wait(mut is_so: impl FnMut() -> bool) -> bool {
    let mut left = PATIENCE.as_millis() / GLANCE.as_millis();
    while !is_so() {
        if left == 0 {
            return false;
        }
        left -= 1;
        std::thread::sleep(GLANCE);
    }
    true
}

/// Asks the status page of a running testbed.
fn request(state: &State, method: &str, path: &str) -> Result<String, String> {
    let host = state.status.trim_start_matches("http://").trim_end_matches('/');
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let token = &state.stop_token;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("{host}: {error}"))?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(answer),
        code => {
            let why = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim_end());
            Err(format!("{host} answered {}: {why}", code.unwrap_or("nothing")))
        }
    }
}
