//! HTTP/1.1 responses, as far as a load generator needs them: the status, a few headers, and where the body ends.
//! Pure and incremental: bytes in, progress out, however they are cut (RFC 9112).

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Status};

/// The longest head, in bytes, interim heads before it included; longer ones are an error.
pub const HEAD_MAX: usize = 256 * 1024;
/// Headers for which no allocation is needed.
const HEADERS: usize = 32;
/// The most headers; more are an error.
const HEADERS_MAX: usize = 2048;
/// The longest line of a chunk's size with its extensions, and the longest trailers.
const CHUNK_LINE_MAX: usize = 16 * 1024;

/// What is wrong with a response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The head is no HTTP/1.x.
    #[error("malformed HTTP response {0:?}")]
    Head(String),
    /// The head does not end.
    #[error("server response headers exceeded {HEAD_MAX} bytes; aborted")]
    TooLong,
    /// More headers than anyone needs.
    #[error("server sent more than {HEADERS_MAX} headers; aborted")]
    TooMany,
    /// The length is no number, or there are several different ones.
    #[error("bad Content-Length {0:?}")]
    Length(String),
    /// A transfer coding other than `chunked`.
    #[error("unsupported transfer encoding: {0:?}")]
    Encoding(String),
    /// A chunk has no size, or does not end where its size says.
    #[error("malformed chunked encoding")]
    Chunk,
}

/// What to keep of a response's head and body, besides what its framing needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The value of this header.
    pub header: Option<&'a str>,
    /// `Location`.
    pub location: bool,
    /// The body answers a `HEAD` request: there is none, whatever the headers say.
    pub head_request: bool,
}

/// A response's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// `Content-Length`.
    pub content_length: Option<u64>,
    /// Whether the connection may be used for another request.
    pub keep_alive: bool,
    /// The value of [`Wanted::header`].
    pub header: Option<String>,
    /// `Location`, if [`Wanted::location`].
    pub location: Option<String>,
}

/// How far a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed. So many of the input are done with; the others must be in the next input again.
    More(usize),
    /// The response is complete after so many bytes of the input.
    Done(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunk),
    UntilClose,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// In a size: its value, and whether it has a digit yet.
    Size {
        value: u64,
        digits: bool,
        line: usize,
    },
    /// After a size, up to the line's end.
    Extension {
        value: u64,
        line: usize,
    },
    Data(u64),
    /// The line break after data.
    DataEnd {
        carriage_return: bool,
    },
    /// After the last chunk, in a line that is empty so far or not.
    Trailer {
        empty: bool,
        seen: usize,
    },
}

/// Reads one response.
#[derive(Clone, Debug)]
pub struct ResponseParser<'a> {
    wanted: Wanted<'a>,
    state: State,
    head: Head,
    body_bytes: u64,
    /// How much of the head was looked at without finding its end.
    scanned: usize,
    /// Bytes of interim heads.
    interim: usize,
}

impl<'a> ResponseParser<'a> {
    /// A parser at the beginning of a response.
    pub fn new(wanted: Wanted<'a>) -> Self {
        ResponseParser {
            wanted,
            state: State::Head,
            head: Head::default(),
            body_bytes: 0,
            scanned: 0,
            interim: 0,
        }
    }

    /// The head, once it was read.
    pub fn head(&self) -> Option<&Head> {
        (self.state != State::Head).then_some(&self.head)
    }

    /// Takes the head out, once it was read.
    pub fn take_head(&mut self) -> Head {
        std::mem::take(&mut self.head)
    }

    /// Bytes of the body so far, without its framing.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Reads on. `body` gets the body's bytes as they come.
    ///
    /// # Errors
    /// What is wrong with the response.
    pub fn advance(&mut self, input: &[u8], mut body: impl FnMut(&[u8])) -> Result<Step, Malformed> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                State::Head => match self.read_head(rest)? {
                    Some(length) => at += length,
                    None => return Ok(Step::More(at)),
                },
                State::Length(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    self.take_body(&rest[..take], &mut body);
                    at += take;
                    let left = left - take as u64;
                    if left > 0 {
                        self.state = State::Length(left);
                        return Ok(Step::More(at));
                    }
                    self.state = State::Done;
                }
                State::UntilClose => {
                    self.take_body(rest, &mut body);
                    return Ok(Step::More(input.len()));
                }
                State::Chunked(chunk) => match self.read_chunk(chunk, rest, &mut body)? {
                    Some(length) => at += length,
                    None => return Ok(Step::More(input.len())),
                },
                State::Done => return Ok(Step::Done(at)),
            }
        }
    }

    /// Whether a connection that ends here ends the response, too.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    fn take_body(&mut self, bytes: &[u8], body: &mut impl FnMut(&[u8])) {
        if !bytes.is_empty() {
            self.body_bytes += bytes.len() as u64;
            body(bytes);
        }
    }

    /// Reads a head; returns its length, `None` if it is not complete.
    fn read_head(&mut self, input: &[u8]) -> Result<Option<usize>, Malformed> {
        // A head that trickles in is not parsed anew for every byte.
        if self.scanned > 0 && !input[self.scanned.min(input.len())..].contains(&b'\n') {
            self.scanned = input.len();
            return too_long(input);
        }
        self.scanned = input.len();
        let mut few = [const { MaybeUninit::uninit() }; HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parsed =
            ParserConfig::default().parse_response_with_uninit_headers(&mut response, input, &mut few);
        let length = match parsed {
            Ok(Status::Complete(length)) => {
                let (status, minor) = (response.code.unwrap_or(0), response.version.unwrap_or(0));
                self.understand(status, minor, response.headers)?;
                length
            }
            Ok(Status::Partial) => return too_long(input),
            Err(httparse::Error::TooManyHeaders) => {
                let mut many = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
                let mut response = httparse::Response::new(&mut many);
                match response.parse(input) {
                    Ok(Status::Complete(length)) => {
                        let (status, minor) = (response.code.unwrap_or(0), response.version.unwrap_or(0));
                        self.understand(status, minor, response.headers)?;
                        length
                    }
                    Ok(Status::Partial) => return too_long(input),
                    Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooMany),
                    Err(_) => return Err(malformed(input)),
                }
            }
            Err(_) => return Err(malformed(input)),
        };
        self.scanned = 0;
        if self.state == State::Head {
            self.interim += length;
            if self.interim >= HEAD_MAX {
                return Err(Malformed::TooLong);
            }
        }
        Ok(Some(length))
    }

    fn understand(&mut self, status: u16, minor: u8, headers: &[Header<'_>]) -> Result<(), Malformed> {
        // Interim answers: the real one follows. 101 would change the protocol, which nobody asked for.
        if (100..200).contains(&status) && status != 101 {
            return Ok(());
        }
        let mut head = Head { status, keep_alive: minor >= 1, ..Head::default() };
        let mut chunked = false;
        for Header { name, value } in headers {
            if name.eq_ignore_ascii_case("content-length") {
                let length = length(value)?;
                if head.content_length.is_some_and(|other| other != length) {
                    return Err(Malformed::Length(text(value)));
                }
                head.content_length = Some(length);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                match value.trim_ascii() {
                    value if value.eq_ignore_ascii_case(b"chunked") => chunked = true,
                    value if value.eq_ignore_ascii_case(b"identity") => {}
                    other => return Err(Malformed::Encoding(text(other))),
                }
            } else if name.eq_ignore_ascii_case("connection") {
                for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    if token.eq_ignore_ascii_case(b"close") {
                        head.keep_alive = false;
                    } else if token.eq_ignore_ascii_case(b"keep-alive") {
                        head.keep_alive = true;
                    }
                }
            } else if self.wanted.location && name.eq_ignore_ascii_case("location") {
                head.location = Some(text(value));
            }
            if self.wanted.header.is_some_and(|wanted| name.eq_ignore_ascii_case(wanted)) {
                head.header = Some(text(value));
            }
        }
        self.state = if self.wanted.head_request || matches!(status, 101 | 204 | 304) {
            State::Done
        } else if chunked {
            head.content_length = None;
            State::Chunked(Chunk::Size { value: 0, digits: false, line: 0 })
        } else if let Some(length) = head.content_length {
            State::Length(length)
        } else {
            head.keep_alive = false;
            State::UntilClose
        };
        if status == 101 {
            head.keep_alive = false;
        }
        self.head = head;
        Ok(())
    }

    /// Reads on in a chunked body, up to where something else than the next byte is to be looked at; `None` when
    /// the input is used up.
    fn read_chunk(
        &mut self,
        mut chunk: Chunk,
        input: &[u8],
        body: &mut impl FnMut(&[u8]),
    ) -> Result<Option<usize>, Malformed> {
        let mut at = 0;
        while at < input.len() {
            let byte = input[at];
            chunk = match chunk {
                Chunk::Data(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                    self.take_body(&input[at..at + take], body);
                    at += take;
                    match left - take as u64 {
                        0 => Chunk::DataEnd { carriage_return: false },
                        left => Chunk::Data(left),
                    }
                }
                other => {
                    at += 1;
                    match step(other, byte)? {
                        Some(next) => next,
                        None => {
                            self.state = State::Done;
                            return Ok(Some(at));
                        }
                    }
                }
            };
        }
        self.state = State::Chunked(chunk);
        Ok(None)
    }
}

/// One byte of a chunked body's framing; `None` after the last one.
fn step(chunk: Chunk, byte: u8) -> Result<Option<Chunk>, Malformed> {
    let end = |value: u64| match value {
        0 => Chunk::Trailer { empty: true, seen: 0 },
        value => Chunk::Data(value),
    };
    Ok(Some(match chunk {
        Chunk::Size { value, digits, line } => match (byte, char::from(byte).to_digit(16)) {
            (_, Some(digit)) => {
                if value >> 60 != 0 {
                    return Err(Malformed::Chunk);
                }
                Chunk::Size { value: value << 4 | u64::from(digit), digits: true, line: line + 1 }
            }
            _ if !digits => return Err(Malformed::Chunk),
            (b'\n', _) => end(value),
            (b';' | b'\r' | b' ' | b'\t', _) => Chunk::Extension { value, line: line + 1 },
            _ => return Err(Malformed::Chunk),
        },
        Chunk::Extension { value, line } => match byte {
            b'\n' => end(value),
            _ if line >= CHUNK_LINE_MAX => return Err(Malformed::Chunk),
            _ => Chunk::Extension { value, line: line + 1 },
        },
        Chunk::DataEnd { carriage_return: false } if byte == b'\r' => {
            Chunk::DataEnd { carriage_return: true }
        }
        Chunk::DataEnd { .. } if byte == b'\n' => Chunk::Size { value: 0, digits: false, line: 0 },
        Chunk::DataEnd { .. } | Chunk::Data(_) => return Err(Malformed::Chunk),
        Chunk::Trailer { empty, seen } => match byte {
            b'\n' if empty => return Ok(None),
            b'\n' => Chunk::Trailer { empty: true, seen: seen + 1 },
            b'\r' => Chunk::Trailer { empty, seen: seen + 1 },
            _ if seen >= CHUNK_LINE_MAX => return Err(Malformed::Chunk),
            _ => Chunk::Trailer { empty: false, seen: seen + 1 },
        },
    }))
}

fn too_long(input: &[u8]) -> Result<Option<usize>, Malformed> {
    if input.len() >= HEAD_MAX { Err(Malformed::TooLong) } else { Ok(None) }
}

/// The first line, cut where it gets long.
fn malformed(input: &[u8]) -> Malformed {
    let line = input.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    Malformed::Head(text(&line[..line.len().min(60)]))
}

fn length(value: &[u8]) -> Result<u64, Malformed> {
    let bad = || Malformed::Length(text(value));
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or_else(bad)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
