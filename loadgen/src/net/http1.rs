//! One HTTP/1.1 connection: a request written, its response read into a buffer that all connections of a thread share.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::net::clock::RealTime;
use crate::net::dial::{Stream, reason};
use crate::net::response::{Head, Malformed, ResponseParser, Step, Wanted};
use crate::{FailureKind, Phases, Time as _};

/// What is read at once; heads that need it get more.
const BUFFER: usize = 64 * 1024;
/// How much of a body is kept for those who look into it.
pub(crate) const BODY_KEPT: usize = 64 * 1024;

/// Reads in a row before other workers, and the time limit, have their turn: a server may send faster than we read.
const READS_IN_A_ROW: usize = 32;

/// How long an idle connection is taken for open without a look at it.
const BELIEVED: Duration = Duration::from_millis(5);

/// How far a request is, for the text of a timeout.
pub(crate) mod stage {
    /// No byte of the answer yet.
    pub(crate) const WAITING: u8 = 0;
    /// In the answer's body.
    pub(crate) const READING: u8 = 1;
    /// Not connected yet.
    pub(crate) const CONNECTING: u8 = 2;
}

/// Where responses are read to. What is not used at once is kept by its connection, so one per thread is enough,
/// however many connections there are.
#[derive(Default)]
pub(crate) struct Scratch(Mutex<Vec<u8>>);

/// An open connection.
pub(crate) struct Http1 {
    stream: Stream,
    /// The beginning of something that is to be read as a whole: a head, most likely.
    rest: Vec<u8>,
    /// When its last answer ended; none before and during an exchange.
    idle_since: Option<Duration>,
    busy: bool,
}

/// A response.
pub(crate) struct Reply {
    pub head: Head,
    pub body_bytes: u64,
    /// Whether the connection may be used again.
    pub reusable: bool,
    /// When its last byte was read.
    pub finished: Duration,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The connection had been used, and ended before the answer's first byte: the server did not want it any more.
    Stale,
    /// Anything else.
    Failed(FailureKind, String),
}

/// One exchange's surroundings.
pub(crate) struct Surroundings<'a> {
    pub time: &'a RealTime,
    pub scratch: &'a Scratch,
    pub stage: &'a AtomicU8,
    pub phases: &'a mut Phases,
    /// When writing begins: now.
    pub began: Duration,
    /// Where the body's beginning goes, if anyone wants it.
    pub body: Option<&'a mut Vec<u8>>,
}

impl Http1 {
    pub(crate) fn new(stream: Stream) -> Self {
        Http1 { stream, rest: Vec::new(), idle_since: None, busy: false }
    }

    /// Whether an exchange began and did not end well: it was given up, or it failed.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Whether the other side still keeps the connection open and quiet. One that was used a moment ago is believed
    /// to be.
    pub(crate) async fn is_open(&mut self, now: Duration) -> bool {
        if self.idle_since.is_some_and(|since| now < since + BELIEVED) {
            return true;
        }
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        poll_fn(|context| {
            Poll::Ready(Pin::new(&mut self.stream).poll_read(context, &mut buffer).is_pending())
        })
        .await
    }

    /// Sends `request` and reads its response. Reads while it writes, since a server may answer early.
    pub(crate) async fn exchange(
        &mut self,
        request: &[u8],
        wanted: Wanted<'_>,
        around: Surroundings<'_>,
    ) -> Result<Reply, Broken> {
        let Surroundings { time, scratch, stage, phases, began, mut body } = around;
        let reused = self.idle_since.take().is_some();
        self.busy = true;
        let (mut written, mut flushed, mut write_failed) = (0, false, false);
        let mut parser = ResponseParser::new(wanted);
        let mut first = None;
        stage.store(stage::WAITING, Ordering::Relaxed);
        let (stream, rest) = (&mut self.stream, &mut self.rest);
        rest.clear();
        let reply = poll_fn(|context| {
            while written < request.len() {
                match Pin::new(&mut *stream).poll_write(context, &request[written..]) {
                    Poll::Ready(Ok(count)) if count > 0 => written += count,
                    // The answer, if there is one, says more than this error.
                    Poll::Ready(_) => (written, write_failed) = (request.len(), true),
                    Poll::Pending => break,
                }
            }
            if !flushed && written == request.len() {
                match Pin::new(&mut *stream).poll_flush(context) {
                    Poll::Ready(result) => {
                        (flushed, write_failed) = (true, write_failed || result.is_err());
                        phases.write = time.now().saturating_sub(began);
                    }
                    Poll::Pending => {}
                }
            }
            let mut buffer = scratch.0.lock().expect("no holder of this lock panics");
            let mut filled = rest.len();
            make_room(&mut buffer, filled);
            buffer[..filled].copy_from_slice(rest);
            for _ in 0..READS_IN_A_ROW {
                let mut space = ReadBuf::new(&mut buffer[filled..]);
                let read = match Pin::new(&mut *stream).poll_read(context, &mut space) {
                    Poll::Pending => {
                        keep_rest(rest, &buffer[..filled]);
                        return Poll::Pending;
                    }
                    Poll::Ready(read) => read.map(|()| space.filled().len()),
                };
                let now = time.now();
                let count = match read {
                    Ok(count) => count,
                    Err(_) if first.is_none() && reused => return Poll::Ready(Err(Broken::Stale)),
                    // TLS ends without a word of farewell where the length says enough.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                    Err(error) => {
                        let text = format!("read: {}", reason(&error));
                        return Poll::Ready(Err(Broken::Failed(FailureKind::Reset, text)));
                    }
                };
                if count == 0 {
                    return Poll::Ready(ended(&parser, first, reused, phases, now));
                }
                let first = *first.get_or_insert_with(|| {
                    phases.wait = now.saturating_sub(began + phases.write);
                    now
                });
                filled += count;
                let keep = |bytes: &[u8]| {
                    if let Some(body) = &mut body {
                        let room = BODY_KEPT.saturating_sub(body.len());
                        body.extend_from_slice(&bytes[..bytes.len().min(room)]);
                    }
                };
                match parser.advance(&buffer[..filled], keep) {
                    Err(malformed) => return Poll::Ready(Err(broken(&malformed))),
                    Ok(Step::Done(used)) => {
                        phases.read = now - first;
                        let body_bytes = parser.body_bytes();
                        let head = parser.take_head();
                        let clean = used == filled && flushed && !write_failed;
                        let reusable = head.keep_alive && clean;
                        return Poll::Ready(Ok(Reply { head, body_bytes, reusable, finished: now }));
                    }
                    Ok(Step::More(used)) => {
                        if used > 0 {
                            buffer.copy_within(used..filled, 0);
                            filled -= used;
                        }
                        make_room(&mut buffer, filled);
                        if parser.head().is_some() {
                            stage.store(stage::READING, Ordering::Relaxed);
                        }
                    }
                }
            }
            keep_rest(rest, &buffer[..filled]);
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await?;
        self.idle_since = Some(reply.finished);
        self.busy = false;
        Ok(reply)
    }
}

/// Room to read more after what there is.
fn make_room(buffer: &mut Vec<u8>, filled: usize) {
    if buffer.len() < filled + BUFFER / 2 {
        buffer.resize(filled + BUFFER, 0);
    }
}

fn keep_rest(rest: &mut Vec<u8>, bytes: &[u8]) {
    rest.clear();
    rest.extend_from_slice(bytes);
}

fn broken(malformed: &Malformed) -> Broken {
    let text = match malformed {
        Malformed::TooLong => format!("net/http: {malformed}"),
        _ => format!("net/http: HTTP/1.x transport connection broken: {malformed}"),
    };
    Broken::Failed(FailureKind::Protocol, text)
}

/// What a connection that ended means for the response.
fn ended(
    parser: &ResponseParser<'_>,
    first: Option<Duration>,
    reused: bool,
    phases: &mut Phases,
    now: Duration,
) -> Result<Reply, Broken> {
    match (first, parser.head()) {
        (None, _) if reused => Err(Broken::Stale),
        (None, _) => Err(Broken::Failed(FailureKind::Reset, "EOF".to_owned())),
        (Some(first), Some(head)) if parser.ends_with_connection() => {
            phases.read = now - first;
            let (head, body_bytes) = (head.clone(), parser.body_bytes());
            Ok(Reply { head, body_bytes, reusable: false, finished: now })
        }
        (Some(_), _) => Err(Broken::Failed(FailureKind::Reset, "unexpected EOF".to_owned())),
    }
}
