//! The load generator beside its peers: `cargo bench -p benches --bench loadgen`.
//!
//! One server, answering from one core; one client at a time, on the other. Each tool runs in turn, several rounds,
//! and the table has the median of the rounds. Peers that are not installed are named and left out. `raw` is the
//! ceiling: a loop over TCP that parses nothing. Options: `--seconds N`, `--rounds N`, `--connections A,B,C`.
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark of real processes in real time, with no interface"
)]

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    Content-Length: 13\r\n\r\nHello, world!";
/// Ticks of `/proc/PID/stat` in a second.
const TICKS: f64 = 100.0;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.first().map(String::as_str) {
        Some("--serve") => serve(),
        Some("--raw") => raw(&args[1..]),
        Some("--loadgen") => return ExitCode::from(loadgen::cli::main("loadgen", &args[1..])),
        // `cargo test --benches` asks whether it starts.
        Some("--test") => {}
        _ => compare(&args),
    }
    ExitCode::SUCCESS
}

/// Answers every request on a port that it prints.
fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            tokio::spawn(answer(stream));
        }
    });
}

async fn answer(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    let mut filled = 0;
    loop {
        let Ok(read @ 1..) = stream.read(&mut buffer[filled..]).await else { return };
        filled += read;
        // No client here pipelines, or sends a body.
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}

/// The ceiling: requests over `connections` for `seconds`, and no look at the answers but their length.
fn raw(args: &[String]) {
    let [port, connections, seconds] = args else { panic!("--raw PORT CONNECTIONS SECONDS") };
    let (port, connections): (u16, usize) = (port.parse().unwrap(), connections.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let (end, mut sent) = (Instant::now() + Duration::from_secs(seconds.parse().unwrap()), 0);
    runtime.block_on(async {
        let workers: Vec<_> = (0..connections)
            .map(|_| {
                tokio::spawn(async move {
                    let request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: raw\r\n\r\n";
                    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    let (mut buffer, mut sent) = ([0; 4096], 0u64);
                    while Instant::now() < end {
                        stream.write_all(request).await.unwrap();
                        let mut filled = 0;
                        while filled < ANSWER.len() {
                            filled += stream.read(&mut buffer[filled..]).await.unwrap();
                        }
                        sent += 1;
                    }
                    sent
                })
            })
            .collect();
        for worker in workers {
            sent += worker.await.unwrap();
        }
    });
    println!("{sent} requests in {seconds}s");
}

/// What one run of a tool took.
#[derive(Clone, Copy, Default)]
struct Run {
    requests: f64,
    cpu: f64,
    wall: f64,
    /// Kilobytes.
    memory: f64,
}

fn compare(args: &[String]) {
    let option = |name: &str, default: &str| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)).map_or_else(|| default.to_owned(), Clone::clone)
    };
    let seconds: u64 = option("--seconds", "3").parse().expect("--seconds takes a number");
    let rounds: usize = option("--rounds", "3").parse().expect("--rounds takes a number");
    let connections: Vec<usize> = option("--connections", "2,50,500")
        .split(',')
        .map(|number| number.parse().expect("--connections takes numbers"))
        .collect();
    let this = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    let mut tools = vec!["raw", "loadgen"];
    for peer in ["wrk", "oha", "hey"] {
        if find(peer) {
            tools.push(peer);
        } else {
            println!("{peer} is not installed: left out");
        }
    }
    let mut server =
        pinned("1", &[&this, "--serve"]).stdout(Stdio::piped()).spawn().expect("taskset (util-linux) runs");
    let mut port = String::new();
    let mut byte = [0];
    while server.stdout.as_mut().unwrap().read(&mut byte).is_ok_and(|read| read == 1) && byte[0] != b'\n' {
        port.push(char::from(byte[0]));
    }
    let mut table = String::from(
        "| connections | client | requests/s | requests per client CPU second | of hey's | peak memory, MB |\n\
         | ---: | --- | ---: | ---: | ---: | ---: |\n",
    );
    for connections in connections {
        let mut runs = vec![Vec::new(); tools.len()];
        for _ in 0..rounds {
            for (tool, runs) in tools.iter().zip(&mut runs) {
                runs.push(measure(tool, &this, &port, connections, seconds));
            }
        }
        let per_cpu = |runs: &[Run]| median(runs.iter().map(|run| run.requests / run.cpu));
        let hey = tools.iter().position(|tool| *tool == "hey").map(|at| per_cpu(&runs[at]));
        for (tool, runs) in tools.iter().zip(&runs) {
            let ratio = hey.map_or("-".to_owned(), |hey| format!("{:.1}", per_cpu(runs) / hey));
            let _ = writeln!(
                table,
                "| {connections} | {tool} | {:.0} | {:.0} | {ratio} | {:.1} |",
                median(runs.iter().map(|run| run.requests / run.wall)),
                per_cpu(runs),
                median(runs.iter().map(|run| run.memory)) / 1024.0,
            );
        }
    }
    let _ = server.kill();
    let _ = server.wait();
    println!("{table}");
}

fn find(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn pinned(core: &str, command: &[&str]) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", core]).args(command);
    pinned
}

fn measure(tool: &str, this: &str, port: &str, connections: usize, seconds: u64) -> Run {
    let (c, s, z) = (connections.to_string(), seconds.to_string(), format!("{seconds}s"));
    let url = format!("http://127.0.0.1:{port}/");
    let command: Vec<&str> = match tool {
        "raw" => vec![this, "--raw", port, &c, &s],
        "loadgen" => vec![this, "--loadgen", "-z", &z, "-c", &c, &url],
        "wrk" => vec!["wrk", "-t", "1", "-c", &c, "-d", &z, &url],
        "oha" => vec!["oha", "--no-tui", "-z", &z, "-c", &c, &url],
        _ => vec!["hey", "-cpus", "1", "-z", &z, "-c", &c, &url],
    };
    let started = Instant::now();
    let mut child = pinned("0", &command).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut run = Run::default();
    // A process that ended keeps its times until it is waited for.
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        run.cpu = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS;
        if fields[0] == "Z" {
            break;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(peak) = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok()) {
            run.memory = f64::max(run.memory, peak);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    run.wall = started.elapsed().as_secs_f64().min(seconds as f64 + 0.5);
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    child.wait().unwrap();
    run.requests = requests(&output).unwrap_or_else(|| panic!("{tool} printed no count:\n{output}"));
    run
}

/// `N requests in`, or `[200] N responses`.
fn requests(output: &str) -> Option<f64> {
    output.lines().map(str::trim).find_map(|line| match line.split_once(" requests in ") {
        Some((count, _)) => count.parse().ok(),
        None => line.strip_prefix("[200]")?.trim().strip_suffix(" responses")?.parse().ok(),
    })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
