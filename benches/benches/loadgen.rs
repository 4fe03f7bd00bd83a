//! The load generator beside its peers: `cargo bench -p benches --bench loadgen`.
//!
//! One server, answering from one core; one client at a time, on the other. Each tool runs in turn, several rounds,
//! and the table has the median of the rounds. Peers that are not installed are named and left out. `raw` is the
//! ceiling: a loop over TCP that parses nothing. Options: `--seconds N`, `--rounds N`, `--connections A,B,C`.
//!
//! `--open` measures the open model instead: the error of the rate, and of the timers, at 20, 2,000 and 20,000
//! requests per second. `--day` pushes a day at 10,000 requests per second through the scheduler and the recorder, on a
//! clock that does not wait, and says how much memory that took.
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark of real processes in real time, with no interface"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::pin::pin;
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use benches::process::{Served, median, peak_memory, pinned, this, watch};
use loadgen::{Answer, Arrivals, Exchange, Failure, FailureKind, Pace, Plan, Recorder, Target, Time};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    Content-Length: 13\r\n\r\nHello, world!";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.first().map(String::as_str) {
        Some("--serve") => serve(),
        Some("--raw") => raw(&args[1..]),
        Some("--loadgen") => return ExitCode::from(loadgen::cli::main("loadgen", &args[1..])),
        Some("--open") => open(&args),
        Some("--day") => day(),
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

/// The value of an option.
fn option(args: &[String], name: &str, default: &str) -> String {
    let at = args.iter().position(|arg| arg == name);
    at.and_then(|at| args.get(at + 1)).map_or_else(|| default.to_owned(), Clone::clone)
}

fn compare(args: &[String]) {
    let seconds: u64 = option(args, "--seconds", "3").parse().expect("--seconds takes a number");
    let rounds: usize = option(args, "--rounds", "3").parse().expect("--rounds takes a number");
    let connections: Vec<usize> = option(args, "--connections", "2,50,500")
        .split(',')
        .map(|number| number.parse().expect("--connections takes numbers"))
        .collect();
    let this = this();
    let mut tools = vec!["raw", "loadgen"];
    for peer in ["wrk", "oha", "hey"] {
        if find(peer) {
            tools.push(peer);
        } else {
            println!("{peer} is not installed: left out");
        }
    }
    let server = Served::start(&["--serve"]);
    let mut table = String::from(
        "| connections | client | requests/s | requests per client CPU second | of hey's | peak memory, MB |\n\
         | ---: | --- | ---: | ---: | ---: | ---: |\n",
    );
    for connections in connections {
        let mut runs = vec![Vec::new(); tools.len()];
        for _ in 0..rounds {
            for (tool, runs) in tools.iter().zip(&mut runs) {
                runs.push(measure(tool, &this, &server.greeting, connections, seconds));
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
    println!("{table}");
}

fn find(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
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
    let child = pinned("0", &command).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (took, output) = watch(child);
    let wall = started.elapsed().as_secs_f64().min(seconds as f64 + 0.5);
    let requests = requests(&output).unwrap_or_else(|| panic!("{tool} printed no count:\n{output}"));
    Run { requests, cpu: took.cpu, wall, memory: took.memory }
}

/// `N requests in`, or `[200] N responses`.
fn requests(output: &str) -> Option<f64> {
    output.lines().map(str::trim).find_map(|line| match line.split_once(" requests in ") {
        Some((count, _)) => count.parse().ok(),
        None => line.strip_prefix("[200]")?.trim().strip_suffix(" responses")?.parse().ok(),
    })
}

/// The open model as a user runs it: `loadgen --rate R`, on one core.
fn open(args: &[String]) {
    let seconds: u64 = option(args, "--seconds", "5").parse().expect("--seconds takes a number");
    let server = Served::start(&["--serve"]);
    println!(
        "| rate | requests | error of the rate, % | latency p50 from sending, µs | p50 from when due, µs | CPU, % |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for rate in [20, 2_000, 20_000] {
        let (rate_text, z) = (rate.to_string(), format!("{seconds}s"));
        let url = format!("http://127.0.0.1:{}/", server.greeting);
        let command =
            [&this(), "--loadgen", "--json", "--rate", &rate_text, "-z", &z, &url].map(str::to_owned);
        let child =
            pinned("0", &command.each_ref().map(String::as_str)).stdout(Stdio::piped()).spawn().unwrap();
        let (took, output) = watch(child);
        let report: serde_json::Value = serde_json::from_str(&output).unwrap();
        let micros = |of: &str| report[of]["p50"].as_f64().unwrap() * 1e6;
        let (requests, total) =
            (report["requests"].as_f64().unwrap(), report["total_seconds"].as_f64().unwrap());
        println!(
            "| {rate} | {requests} | {:.3} | {:.0} | {:.0} | {:.1} |",
            (requests / total / f64::from(rate) - 1.0) * 100.0,
            micros("latency"),
            micros("latency_from_due"),
            took.cpu / total * 100.0,
        );
    }
}

/// A clock that goes on to whoever sleeps for the shortest time, as soon as all sleep.
#[derive(Default)]
struct Hurried {
    now: AtomicU64,
    sleepers: Mutex<BinaryHeap<Reverse<Sleeper>>>,
}

struct Sleeper(u64, Waker);

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Sleeper {}

impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sleeper {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl Hurried {
    /// Runs `work` to its end.
    fn drive(&self, work: impl Future) {
        let mut work = pin!(work);
        let mut context = std::task::Context::from_waker(Waker::noop());
        while work.as_mut().poll(&mut context).is_pending() {
            let Reverse(Sleeper(at, waker)) = self.sleepers.lock().unwrap().pop().expect("someone sleeps");
            self.now.fetch_max(at, Ordering::Relaxed);
            waker.wake();
        }
    }
}

impl Time for Hurried {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.now.load(Ordering::Relaxed))
    }

    async fn sleep_until(&self, at: Duration) {
        let at = u64::try_from(at.as_nanos()).unwrap();
        std::future::poll_fn(|context| {
            if self.now.load(Ordering::Relaxed) >= at {
                return Poll::Ready(());
            }
            self.sleepers.lock().unwrap().push(Reverse(Sleeper(at, context.waker().clone())));
            Poll::Pending
        })
        .await;
    }
}

/// Answers after anything from a microsecond to two seconds, half of the time within a millisecond; one request in a
/// thousand fails, each with a text of its own; a tenth comes from a canary.
struct Varied {
    served: AtomicU64,
    groups: [Arc<str>; 2],
}

impl Target for Varied {
    type Connection = ();

    fn connection(&self, _index: usize) {}

    async fn send(&self, _connection: &mut (), _sent: Duration) -> Exchange {
        let number = self.served.fetch_add(1, Ordering::Relaxed);
        // The bits of a number's product with an odd constant are as good as drawn.
        let drawn = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let magnitude = (drawn >> 32 | 1 << 20).leading_zeros() - 32;
        let nanos = (1_000 << magnitude) * (drawn & 0x3ff) + 1_000;
        let latency = Duration::from_nanos(nanos);
        let group = Arc::clone(&self.groups[usize::from(number.is_multiple_of(10))]);
        if number % 1_000 == 999 {
            let text = format!("broken in its own way, number {number}").into();
            let failure = Failure { kind: FailureKind::Reset, text };
            return Exchange { group: Some(group), ..Exchange::failed(failure, latency) };
        }
        let answer = Answer { status: 200, content_length: Some(13), body_bytes: 13 };
        Exchange { group: Some(group), ..Exchange::answered(answer, latency) }
    }
}

/// A day at 10,000 requests per second: every result is scheduled and recorded, none is waited for.
fn day() {
    let plan = Plan {
        connections: 200,
        requests: None,
        duration: Some(Duration::from_secs(24 * 3600)),
        pace: Pace::Open(Arrivals::constant(10_000.0)),
        ..Plan::default()
    };
    let target = Varied { served: AtomicU64::new(0), groups: ["primary".into(), "canary".into()] };
    let recorder = Recorder::default();
    let (before, started) = (peak_memory("self").unwrap(), Instant::now());
    let clock = Hurried::default();
    clock.drive(loadgen::run(&plan, &target, &clock, &recorder));
    let report = recorder.finish();
    assert_eq!(report.all.requests, 864_000_000);
    assert_eq!(report.all.failed(), 864_000);
    println!(
        "{} requests in {:.0} s; p50 {:?}, p99.99 {:?}, slowest {:?}; peak memory {:.1} MB, {:.1} MB before the run",
        report.all.requests,
        started.elapsed().as_secs_f64(),
        report.all.latency.quantile(0.5),
        report.all.latency.quantile(0.9999),
        report.all.latency.most(),
        peak_memory("self").unwrap() / 1024.0,
        before / 1024.0,
    );
}
