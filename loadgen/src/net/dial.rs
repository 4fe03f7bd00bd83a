//! Connections: names, addresses, proxies, TLS.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin as Pinned;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use http::Uri;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::net::clock::RealTime;
use crate::{Failure, FailureKind, Phases, Time as _};

/// How long addresses of a name are used without asking again: hundreds of connections that open at once ask once,
/// and a name that moves is followed.
const ADDRESSES_KEPT: Duration = Duration::from_secs(1);
/// The longest answer of a proxy to `CONNECT`.
const PROXY_ANSWER_MAX: usize = 16 * 1024;

/// A server: where connections go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    pub tls: bool,
    pub host: String,
    pub port: u16,
}

impl Origin {
    /// The server of an absolute URL.
    pub(crate) fn of(url: &Uri) -> Self {
        let tls = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Origin { tls, host: host.to_owned(), port }
    }
}

/// `--resolve HOST:PORT:ADDRESS`: an address for a name, as in curl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The name.
    pub host: String,
    /// The port that it holds for.
    pub port: u16,
    /// The addresses to use.
    pub addresses: Vec<IpAddr>,
}

impl Pin {
    /// Reads `HOST:PORT:ADDRESS[,ADDRESS]...`; an IPv6 address may stand in brackets.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} must be HOST:PORT:ADDRESS, e.g. podinfo.test:80:127.0.0.1");
        let mut parts = text.splitn(3, ':');
        let (host, port, addresses) = match (parts.next(), parts.next(), parts.next()) {
            (Some(host), Some(port), Some(addresses)) if !host.is_empty() => (host, port, addresses),
            _ => return Err(bad()),
        };
        let addresses = addresses
            .split(',')
            .map(|address| address.trim_matches(['[', ']']).parse())
            .collect::<Result<_, _>>()
            .map_err(|_| bad())?;
        Ok(Pin { host: host.to_owned(), port: port.parse().map_err(|_| bad())?, addresses })
    }
}

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// `Proxy-Authorization`.
    pub(crate) authorization: Option<String>,
}

impl Proxy {
    /// Reads `HOST:PORT` or `http://[USER:PASSWORD@]HOST[:PORT]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("proxy {text:?} must be HOST:PORT or http://HOST:PORT");
        let authority = match text.split_once("://") {
            None => text,
            Some(("http", authority)) => authority.trim_end_matches('/'),
            Some((scheme, _)) => return Err(format!("proxy {text:?}: {scheme} proxies are not supported")),
        };
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, authority),
        };
        let uri: Uri = format!("http://{authority}/").parse().map_err(|_| bad())?;
        let Origin { host, port, .. } = Origin::of(&uri);
        if host.is_empty() {
            return Err(bad());
        }
        let encode = |user: &str| base64::engine::general_purpose::STANDARD.encode(user);
        Ok(Proxy { host, port, authorization: user.map(|user| format!("Basic {}", encode(user))) })
    }
}

/// How servers are reached.
#[derive(Clone, Default)]
pub struct Route {
    /// Addresses that are not asked for.
    pub pins: Vec<Pin>,
    /// A Unix socket that everything goes to.
    pub unix: Option<PathBuf>,
    /// A proxy.
    pub proxy: Option<Proxy>,
    /// TLS, for `https` URLs.
    pub tls: Option<Arc<ClientConfig>>,
}

/// Opens connections.
pub struct Dialer {
    pub(crate) route: Route,
    /// Addresses asked for, and when.
    names: Mutex<BTreeMap<(String, u16), Found>>,
}

/// When a name was looked up, and its addresses.
type Found = (Duration, Vec<SocketAddr>);

/// A connection that is open, and whether HTTP/2 was agreed on.
pub(crate) struct Dialled {
    pub stream: Stream,
    pub http2: bool,
}

fn failure(kind: FailureKind, text: String) -> Failure {
    Failure { kind, text: Cow::Owned(text) }
}

/// The operating system's reason in Go's words, which hey prints.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset => "connection reset by peer",
        io::ErrorKind::BrokenPipe => "broken pipe",
        io::ErrorKind::TimedOut => "connection timed out",
        io::ErrorKind::HostUnreachable => "no route to host",
        io::ErrorKind::NetworkUnreachable => "network is unreachable",
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address",
        io::ErrorKind::NotFound => "no such file or directory",
        io::ErrorKind::PermissionDenied => "permission denied",
        _ if error.raw_os_error() == Some(24) => "too many open files",
        _ => return error.to_string(),
    };
    text.to_owned()
}

impl Dialer {
    /// A dialer for a route.
    pub fn new(route: Route) -> Self {
        Dialer { route, names: Mutex::default() }
    }

    /// Opens a connection to `origin`; adds the time it took to `phases`.
    pub(crate) async fn dial(
        &self,
        origin: &Origin,
        time: &RealTime,
        phases: &mut Phases,
    ) -> Result<Dialled, Failure> {
        let started = time.now();
        let dialled = self.open(origin, time, phases).await;
        phases.connect += time.now() - started;
        dialled
    }

    async fn open(&self, origin: &Origin, time: &RealTime, phases: &mut Phases) -> Result<Dialled, Failure> {
        let stream = if let Some(path) = &self.route.unix {
            let opened = UnixStream::connect(path).await;
            let text = |error| format!("dial unix {}: connect: {}", path.display(), reason(&error));
            Stream::Unix(opened.map_err(|error| failure(FailureKind::Connect, text(error)))?)
        } else if let Some(proxy) = &self.route.proxy {
            let mut stream = self.tcp(&proxy.host, proxy.port, time, phases).await.map_err(of_proxy)?;
            if origin.tls {
                connect_through(&mut stream, origin, proxy).await?;
            }
            stream
        } else {
            self.tcp(&origin.host, origin.port, time, phases).await?
        };
        if !origin.tls {
            return Ok(Dialled { stream, http2: false });
        }
        let config = self.route.tls.as_ref().ok_or_else(|| {
            failure(FailureKind::Tls, "tls: this load generator was set up without TLS".to_owned())
        })?;
        let name = ServerName::try_from(origin.host.clone())
            .map_err(|_| failure(FailureKind::Tls, format!("tls: {:?} is no server name", origin.host)))?;
        let connecting = TlsConnector::from(Arc::clone(config)).connect(name, Box::new(stream));
        let stream = connecting.await.map_err(|error| failure(FailureKind::Tls, tls_reason(&error)))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Dialled { stream: Stream::Tls(Box::new(stream)), http2 })
    }

    async fn tcp(
        &self,
        host: &str,
        port: u16,
        time: &RealTime,
        phases: &mut Phases,
    ) -> Result<Stream, Failure> {
        let mut last = None;
        for address in self.addresses(host, port, time, phases).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // A refusal means slower requests, nothing worse.
                    let _ = stream.set_nodelay(true);
                    return Ok(Stream::Tcp(stream));
                }
                Err(error) => last = Some((address, error)),
            }
        }
        Err(match last {
            Some((_, error)) if error.raw_os_error() == Some(24) => {
                failure(FailureKind::Connect, format!("dial tcp: socket: {}", reason(&error)))
            }
            Some((address, error)) => {
                failure(FailureKind::Connect, format!("dial tcp {address}: connect: {}", reason(&error)))
            }
            None => failure(FailureKind::Resolve, format!("dial tcp: lookup {host}: no such host")),
        })
    }

    async fn addresses(
        &self,
        host: &str,
        port: u16,
        time: &RealTime,
        phases: &mut Phases,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let pinned =
            self.route.pins.iter().find(|pin| pin.port == port && pin.host.eq_ignore_ascii_case(host));
        if let Some(pin) = pinned {
            return Ok(pin.addresses.iter().map(|address| SocketAddr::new(*address, port)).collect());
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let started = time.now();
        let mut names = self.names.lock().await;
        let key = (host.to_owned(), port);
        let now = time.now();
        if let Some((asked, addresses)) = names.get(&key)
            && now.saturating_sub(*asked) < ADDRESSES_KEPT
        {
            return Ok(addresses.clone());
        }
        let found = tokio::net::lookup_host((host, port)).await;
        phases.lookup += time.now() - started;
        let addresses: Vec<SocketAddr> = found
            .map_err(|_| failure(FailureKind::Resolve, format!("dial tcp: lookup {host}: no such host")))?
            .collect();
        names.insert(key, (now, addresses.clone()));
        Ok(addresses)
    }
}

/// Why TLS did not come about, with what to do about it.
fn tls_reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(problem)) => format!(
            "tls: failed to verify certificate: {problem} (--cacert FILE names an authority, --insecure checks \
             nothing)"
        ),
        Some(rustls::Error::InvalidMessage(_)) => {
            "tls: first record does not look like a TLS handshake".to_owned()
        }
        Some(other) => format!("tls: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "tls: EOF during the handshake".to_owned(),
        None => format!("tls: {}", reason(error)),
    }
}

/// A failure that the proxy is to blame for, in Go's words.
fn of_proxy(failure: Failure) -> Failure {
    Failure { text: Cow::Owned(format!("proxyconnect tcp: {}", failure.text)), ..failure }
}

/// Asks a proxy for a tunnel to `origin` (RFC 9110, 9.3.6).
async fn connect_through(stream: &mut Stream, origin: &Origin, proxy: &Proxy) -> Result<(), Failure> {
    let broken = |error: io::Error| {
        let text = if error.kind() == io::ErrorKind::UnexpectedEof {
            "unexpected EOF".to_owned()
        } else {
            reason(&error)
        };
        of_proxy(failure(FailureKind::Reset, text))
    };
    let place = if origin.host.contains(':') {
        format!("[{}]:{}", origin.host, origin.port)
    } else {
        format!("{}:{}", origin.host, origin.port)
    };
    let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    // Byte by byte: what follows the answer belongs to TLS.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.map_err(broken)?;
        answer.push(byte);
        if answer.len() > PROXY_ANSWER_MAX {
            let text = format!("headers exceeded {PROXY_ANSWER_MAX} bytes; aborted");
            return Err(of_proxy(failure(FailureKind::Protocol, text)));
        }
    }
    let first = String::from_utf8_lossy(&answer);
    let first = first.lines().next().unwrap_or_default();
    match first.split_once(' ').filter(|(version, _)| version.starts_with("HTTP/1.")) {
        Some((_, status)) if status.starts_with('2') => Ok(()),
        Some((_, status)) => Err(of_proxy(failure(FailureKind::Connect, status.trim_end().to_owned()))),
        None => {
            let text = format!("malformed HTTP response {first:?}");
            Err(of_proxy(failure(FailureKind::Protocol, text)))
        }
    }
}

/// An open connection of any kind.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<Box<Stream>>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pinned<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pinned::new(stream).poll_read(context, buffer),
            Stream::Unix(stream) => Pinned::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pinned::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pinned<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pinned::new(stream).poll_write(context, bytes),
            Stream::Unix(stream) => Pinned::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pinned::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pinned<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pinned::new(stream).poll_flush(context),
            Stream::Unix(stream) => Pinned::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pinned::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pinned<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pinned::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pinned::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pinned::new(stream).poll_shutdown(context),
        }
    }
}
