//! Requests that take over their connection: `exec` and `attach` over WebSocket or SPDY/3.1, `port-forward` over SPDY/3.1, raw or
//! inside WebSocket, and over WebSocket's own channels.

mod spdy;
mod websocket;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use apiserver::{ApiServer, Body, Failure, Purpose, Upgrade};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::refused;

/// What a command printed and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executed {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The exit code.
    pub code: i32,
}

/// Where `exec` and `port-forward` end.
pub trait Pods: Send + Sync {
    /// Runs a command in a pod's container (its first without a name).
    fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
        command: Vec<String>,
    ) -> BoxFuture<'static, Result<Executed, String>>;

    /// Connects to a port of a pod.
    fn connect(&self, namespace: &str, pod: &str, port: u16) -> BoxFuture<'static, io::Result<TcpStream>>;
}

/// The protocol of a WebSocket that SPDY frames travel in.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// Answers the request; what follows happens in the background.
pub(crate) fn answer(
    headers: &HeaderMap,
    query: &str,
    upgraded: OnUpgrade,
    wanted: Upgrade,
    api: &ApiServer,
    pods: Option<Arc<dyn Pods>>,
) -> Response<Body> {
    let Some(pods) = pods else {
        return refused(&Failure::new(501, "NotImplemented", "this server has no running pods"));
    };
    let Upgrade { namespace, pod, purpose } = wanted;
    let target = Target { api: api.clone(), pods, namespace, pod };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let offered = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(|protocol| protocol.trim().to_owned()).collect()
    };
    let is_asked = |name: &str| {
        query
            .split('&')
            .any(|pair| matches!(pair.split_once('='), Some((found, "true" | "1")) if found == name))
    };
    match (text("upgrade").to_ascii_lowercase().as_str(), purpose) {
        ("websocket", purpose) => {
            let protocols = offered("sec-websocket-protocol");
            let wanted: &[&str] = match purpose {
                Purpose::Exec { .. } | Purpose::Attach { .. } => &["v5.channel.k8s.io", "v4.channel.k8s.io"],
                _ => &[TUNNEL, "v4.channel.k8s.io", "portforward.k8s.io"],
            };
            let Some(protocol) =
                wanted.iter().find(|wanted| protocols.iter().any(|offered| offered == *wanted))
            else {
                let why = format!("none of the protocols {protocols:?} is served; served are {wanted:?}");
                return refused(&Failure::new(400, "BadRequest", why));
            };
            let protocol = *protocol;
            let mut answer = switching("websocket");
            let key = websocket::accept_key(text("sec-websocket-key"));
            insert(&mut answer, "sec-websocket-accept", &key);
            insert(&mut answer, "sec-websocket-protocol", protocol);
            after(upgraded, move |stream| async move {
                match purpose {
                    Purpose::Exec { container, command } => {
                        exec_over_websocket(stream, &target, container, command).await;
                    }
                    Purpose::Attach { container } => attach_over_websocket(stream, &target, container).await,
                    Purpose::PortForward { ports } if protocol != TUNNEL => {
                        forward_over_channels(stream, target, ports).await;
                    }
                    _ => forward(spdy::connection(untunneled(stream)), target).await,
                }
            });
            answer
        }
        ("spdy/3.1", purpose) => {
            let protocol = match purpose {
                Purpose::Exec { .. } | Purpose::Attach { .. } => "v4.channel.k8s.io",
                _ => "portforward.k8s.io",
            };
            let mut answer = switching("SPDY/3.1");
            insert(&mut answer, "x-stream-protocol-version", protocol);
            let expected =
                1 + ["stdin", "stdout", "stderr", "tty"].iter().filter(|stream| is_asked(stream)).count();
            after(upgraded, move |stream| async move {
                let streams = spdy::connection(stream);
                match purpose {
                    Purpose::Exec { container, command } => {
                        exec_over_spdy(streams, &target, container, command, expected).await;
                    }
                    Purpose::Attach { container } => {
                        attach_over_spdy(streams, &target, container, expected).await;
                    }
                    _ => forward(streams, target).await,
                }
            });
            answer
        }
        _ => refused(&Failure::new(400, "BadRequest", "Upgrade request required")),
    }
}

/// Where the bytes from a pod's port go.
enum Output {
    Stream(spdy::Outgoing),
    /// A WebSocket's channel.
    Channel(websocket::Sender, u8),
}

impl Output {
    async fn send(&self, bytes: &[u8]) {
        match self {
            Output::Stream(outgoing) => outgoing.send(bytes).await,
            Output::Channel(sender, channel) => sender.send([&[*channel], bytes].concat()).await,
        }
    }
}

/// A pod that somebody wants into.
#[derive(Clone)]
struct Target {
    api: ApiServer,
    pods: Arc<dyn Pods>,
    namespace: String,
    pod: String,
}

impl Target {
    async fn exec(&self, container: Option<String>, command: Vec<String>) -> (Executed, Value) {
        let done = self.pods.exec(&self.namespace, &self.pod, container.as_deref(), command).await;
        match done {
            Ok(executed) if executed.code == 0 => (executed, json!({"metadata": {}, "status": "Success"})),
            Ok(executed) => {
                let code = executed.code.to_string();
                let status = json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                    "message": format!("command terminated with non-zero exit code: exit status {code}"),
                    "details": {"causes": [{"reason": "ExitCode", "message": code}]}});
                (executed, status)
            }
            Err(why) => {
                let status = json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                    "message": why});
                (Executed::default(), status)
            }
        }
    }

    /// What a container prints from now on, handed to `print` piece by piece; the Status at the end.
    async fn attach<F: Future<Output = ()>>(
        &self,
        container: Option<String>,
        print: impl Fn(Bytes) -> F,
    ) -> Value {
        let container = container.map(|name| format!("&container={name}")).unwrap_or_default();
        let uri = format!(
            "/api/v1/namespaces/{}/pods/{}/log?follow=true&tailLines=0{container}",
            self.namespace, self.pod
        );
        let failed = |why: &str| {
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": why})
        };
        let request = match Request::get(uri).body(Bytes::new()) {
            Ok(request) => request,
            Err(error) => return failed(&error.to_string()),
        };
        // Who may attach was checked before: what follows is the kubelet's.
        let Ok(answer) = self.api.handle("system:kubelet", request).await else {
            return failed("the log broke off");
        };
        let is_log = answer.status().is_success();
        let mut pieces = answer.into_body().into_data_stream();
        let mut refusal = Vec::new();
        while let Some(Ok(piece)) = pieces.next().await {
            match is_log {
                true => print(piece).await,
                false => refusal.extend_from_slice(&piece),
            }
        }
        match is_log {
            true => json!({"metadata": {}, "status": "Success"}),
            false => serde_json::from_slice(&refusal).unwrap_or_else(|_| failed("there is no log")),
        }
    }

    /// Joins a connection to a port with the two directions of a stream; returns why it could not.
    async fn forward(
        &self,
        port: u16,
        mut incoming: tokio::sync::mpsc::Receiver<Vec<u8>>,
        output: &Output,
    ) -> Result<(), String> {
        let failed = |error: io::Error| {
            format!("error forwarding port {port} to pod {}/{}: {error}", self.namespace, self.pod)
        };
        let socket = self.pods.connect(&self.namespace, &self.pod, port).await.map_err(failed)?;
        let (mut reader, mut writer) = socket.into_split();
        let up = async {
            while let Some(bytes) = incoming.recv().await {
                writer.write_all(&bytes).await?;
            }
            writer.shutdown().await
        };
        let down = async {
            let mut buffer = vec![0; 32_768];
            loop {
                match reader.read(&mut buffer).await {
                    Ok(0) => return Ok(()),
                    Ok(length) => output.send(&buffer[..length]).await,
                    Err(error) => return Err(error),
                }
            }
        };
        // The server's end ends the connection; a client that only stopped sending still wants the answer.
        tokio::select! {
            ended = down => ended.map_err(failed),
            failure = async { match up.await { Ok(()) => std::future::pending().await, Err(error) => error } } => Err(failed(failure)),
        }
    }
}

fn switching(protocol: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::Whole(None));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    answer
}

fn insert(answer: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

fn after<F, Fut>(upgraded: OnUpgrade, then: F)
where
    F: FnOnce(TokioIo<hyper::upgrade::Upgraded>) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        if let Ok(stream) = upgraded.await {
            then(TokioIo::new(stream)).await;
        }
    });
}

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;

async fn exec_over_websocket(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    target: &Target,
    container: Option<String>,
    command: Vec<String>,
) {
    let (sender, mut receiver) = websocket::connection(stream);
    let ran = async {
        let (executed, status) = target.exec(container, command).await;
        let channel = |number: u8, text: &str| [&[number], text.as_bytes()].concat();
        for (number, text) in [(STDOUT, &executed.stdout), (STDERR, &executed.stderr)] {
            if !text.is_empty() {
                sender.send(channel(number, text)).await;
            }
        }
        sender.send(channel(ERROR, &status.to_string())).await;
    };
    // Commands read no input; a client that goes away needs no answer.
    tokio::select! { biased;
        () = ran => {}
        () = async { while let Ok(Some(_)) = receiver.receive().await {} } => {}
    }
    drop(sender);
    while let Ok(Some(_)) = receiver.receive().await {}
}

async fn attach_over_websocket(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    target: &Target,
    container: Option<String>,
) {
    let (sender, mut receiver) = websocket::connection(stream);
    let attached = async {
        let print = |piece: Bytes| sender.send([&[STDOUT], &piece[..]].concat());
        let status = target.attach(container, print).await;
        sender.send([&[ERROR], status.to_string().as_bytes()].concat()).await;
    };
    // Programs read no input; a client that goes away ends it.
    tokio::select! { biased;
        () = attached => {}
        () = async { while let Ok(Some(_)) = receiver.receive().await {} } => return,
    }
    drop(sender);
    while let Ok(Some(_)) = receiver.receive().await {}
}

async fn attach_over_spdy(
    mut streams: tokio::sync::mpsc::Receiver<spdy::Stream>,
    target: &Target,
    container: Option<String>,
    expected: usize,
) {
    let Some(mut found) = named_streams(&mut streams, expected).await else { return };
    let attached = async {
        let status = match found.get("stdout") {
            Some(stdout) => {
                let print = |piece: Bytes| async move { stdout.outgoing.send(&piece).await };
                target.attach(container, print).await
            }
            None => json!({"metadata": {}, "status": "Success"}),
        };
        if let Some(error) = found.get("error") {
            error.outgoing.send(status.to_string().as_bytes()).await;
        }
    };
    tokio::select! { biased;
        () = attached => {}
        () = async { while streams.recv().await.is_some() {} } => return,
    }
    for stream in std::mem::take(&mut found).into_values() {
        stream.outgoing.finish().await;
    }
    while streams.recv().await.is_some() {}
}

/// A client's streams by their type; `None` if it goes before all are there.
async fn named_streams(
    streams: &mut tokio::sync::mpsc::Receiver<spdy::Stream>,
    expected: usize,
) -> Option<BTreeMap<String, spdy::Stream>> {
    let mut found = BTreeMap::new();
    while found.len() < expected {
        let stream = streams.recv().await?;
        found.insert(stream.headers.get("streamtype").cloned().unwrap_or_default(), stream);
    }
    Some(found)
}

async fn exec_over_spdy(
    mut streams: tokio::sync::mpsc::Receiver<spdy::Stream>,
    target: &Target,
    container: Option<String>,
    command: Vec<String>,
    expected: usize,
) {
    let Some(mut found) = named_streams(&mut streams, expected).await else { return };
    let (executed, status) = target.exec(container, command).await;
    let status = status.to_string();
    for (name, text) in [("stdout", &executed.stdout), ("stderr", &executed.stderr), ("error", &status)] {
        if let Some(stream) = found.remove(name) {
            stream.outgoing.send(text.as_bytes()).await;
            stream.outgoing.finish().await;
        }
    }
    for stream in std::mem::take(&mut found).into_values() {
        stream.outgoing.finish().await;
    }
    // The client closes.
    while streams.recv().await.is_some() {}
}

/// Serves pairs of streams: one for errors, one for data, with the same `requestID`.
async fn forward(mut streams: tokio::sync::mpsc::Receiver<spdy::Stream>, target: Target) {
    let mut errors: BTreeMap<String, spdy::Outgoing> = BTreeMap::new();
    while let Some(stream) = streams.recv().await {
        let header = |name: &str| stream.headers.get(name).cloned().unwrap_or_default();
        let request = header("requestid");
        if header("streamtype") == "error" {
            errors.insert(request, stream.outgoing);
            continue;
        }
        let (error, target) = (errors.remove(&request), target.clone());
        let port = header("port").parse::<u16>();
        tokio::spawn(async move {
            let spdy::Stream { incoming, outgoing, .. } = stream;
            let output = Output::Stream(outgoing);
            let done = match port {
                Ok(port) => target.forward(port, incoming, &output).await,
                Err(_) => Err("the stream names no port".to_owned()),
            };
            if let Output::Stream(outgoing) = output {
                outgoing.finish().await;
            }
            if let Some(error) = error {
                if let Err(why) = done {
                    error.send(why.as_bytes()).await;
                }
                error.finish().await;
            }
        });
    }
}

/// `port-forward` as kube-rs speaks it: of port `i`, channel `2i` is data and `2i+1` errors; each begins with the port's
/// number.
async fn forward_over_channels(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    target: Target,
    ports: Vec<u16>,
) {
    let (sender, mut receiver) = websocket::connection(stream);
    let mut inputs = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let Ok(data) = u8::try_from(2 * index) else { break };
        for channel in [data, data + 1] {
            sender.send([&[channel], &port.to_le_bytes()[..]].concat()).await;
        }
        let (input, incoming) = tokio::sync::mpsc::channel(64);
        inputs.push(input);
        let (sender, target) = (sender.clone(), target.clone());
        tokio::spawn(async move {
            let output = Output::Channel(sender.clone(), data);
            if let Err(why) = target.forward(port, incoming, &output).await {
                sender.send([&[data + 1], why.as_bytes()].concat()).await;
            }
        });
    }
    drop(sender);
    while let Ok(Some(message)) = receiver.receive().await {
        let Some((channel, bytes)) = message.split_first() else { continue };
        if let Some(input) = inputs.get(usize::from(channel / 2)).filter(|_| channel % 2 == 0) {
            let _ = input.send(bytes.to_vec()).await;
        }
    }
}

/// The byte stream inside a WebSocket's messages.
fn untunneled(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> tokio::io::DuplexStream {
    let (inside, outside) = tokio::io::duplex(65_536);
    let (sender, mut receiver) = websocket::connection(stream);
    let (mut reader, mut writer) = tokio::io::split(outside);
    tokio::spawn(async move {
        while let Ok(Some(message)) = receiver.receive().await {
            if writer.write_all(&message).await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 32_768];
        while let Ok(length) = reader.read(&mut buffer).await {
            if length == 0 {
                break;
            }
            sender.send(buffer[..length].to_vec()).await;
        }
    });
    inside
}
