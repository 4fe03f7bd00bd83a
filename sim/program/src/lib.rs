//! What a simulated process gets, and nothing else: API clients, a network, a clock, a seed, a log, and its
//! container's arguments, environment and files.
//!
//! A *program* is what the kubelet runs for a container image: the canary controller, podinfo, Prometheus, a proxy.
//! Programs do not know which world they run in (in memory on virtual time, or on loopback sockets), nor one
//! another. The kubelet of `cluster` makes each container's [`Context`] and calls its [`Main`]; the testbed decides
//! which image is which program.

mod api;
mod arrival;
mod context;
mod decoded;
mod files;
mod informer;
mod logs;
mod network;
mod objects;
mod process;
mod reply;
mod request;
mod response;
mod usage;
mod watch;
mod workqueue;

pub use api::{Apis, ConnectError, connect_kubeconfig};
pub use arrival::{Arrival, Endings};
pub use context::{Context, Identity, Main, program};
pub use files::Files;
pub use informer::{Change, Informer};
pub use kinds::Kind;
pub use logs::{LogSink, LogSource, LogStore, Logs};
pub use network::{
    DialError, Handler, ListenError, Listening, Network, Proxy, ServedBy, respond, respond_json,
};
pub use objects::{Answer, Api};
pub use process::{Exec, ExecOutput, ExecTable, ExitCode, Tasks, Termination};
pub use reply::Reply;
pub use request::{Request, Target};
pub use response::{Lost, Response, Stage};
pub use usage::CpuMeter;
pub use watch::{Object, Seen, Selection, list_and_watch};
pub use workqueue::WorkQueue;
