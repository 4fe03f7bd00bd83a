//! The response parser: however the bytes are cut, and whatever they are.

use loadgen::net::response::{HEAD_MAX, Head, Malformed, ResponseParser, Step, Wanted};
use proptest::prelude::*;

/// What a parser made of bytes that came in pieces.
#[derive(Debug, PartialEq)]
struct Read {
    head: Head,
    body: Vec<u8>,
    /// Bytes after the response; `None` if it did not end.
    left: Option<Vec<u8>>,
}

/// Feeds bytes as a connection does: what is not used comes again with what follows.
fn read(pieces: &[&[u8]], wanted: Wanted<'_>) -> Result<Read, Malformed> {
    let mut parser = ResponseParser::new(wanted);
    let (mut buffer, mut body, mut left) = (Vec::new(), Vec::new(), None::<Vec<u8>>);
    for piece in pieces {
        if let Some(left) = &mut left {
            left.extend_from_slice(piece);
            continue;
        }
        buffer.extend_from_slice(piece);
        match parser.advance(&buffer, |bytes| body.extend_from_slice(bytes))? {
            Step::More(used) => {
                assert!(used <= buffer.len());
                buffer.drain(..used);
            }
            Step::Done(used) => left = Some(buffer[used..].to_vec()),
        }
    }
    assert_eq!(parser.body_bytes(), body.len() as u64);
    Ok(Read { head: parser.take_head(), body, left })
}

fn whole(bytes: &[u8]) -> Result<Read, Malformed> {
    read(&[bytes], Wanted::default())
}

#[test]
fn bodies_end_where_their_framing_says() {
    let text = |response: &str, body: &str, left: Option<&str>, keep_alive: bool| {
        let read = whole(response.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(read.body).unwrap(), body, "{response}");
        assert_eq!(read.left.as_deref(), left.map(str::as_bytes), "{response}");
        assert_eq!(read.head.keep_alive, keep_alive, "{response}");
    };
    text("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcX", "abc", Some("X"), true);
    text("HTTP/1.1 200 OK\r\ncontent-length: 3\r\nConnection: close\r\n\r\nabc", "abc", Some(""), false);
    text("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "", Some(""), false);
    text("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", "", Some(""), true);
    text("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", "", Some(""), true);
    text("HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end", None, false);
    text(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\na",
        "a",
        Some(""),
        true,
    );
    text(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nT: 1\r\n\r\nX",
        "abc0123456789",
        Some("X"),
        true,
    );
    // Chunks win over a length (RFC 9112, 6.3).
    text(
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        "a",
        Some(""),
        true,
    );
}

#[test]
fn heads_give_what_is_wanted_of_them() {
    let response = b"HTTP/1.1 302 Found\r\nX-Version: v2 \r\nLocation: /there\r\nContent-Length: 5\r\n\r\n";
    let wanted = Wanted { header: Some("x-version"), location: true, head_request: true };
    let read = read(&[response], wanted).unwrap();
    assert_eq!(read.left, Some(Vec::new()), "an answer to HEAD has no body");
    assert_eq!(read.head.header.as_deref(), Some("v2"));
    assert_eq!(read.head.location.as_deref(), Some("/there"));
    assert_eq!((read.head.status, read.head.content_length), (302, Some(5)));
}

#[test]
fn what_is_wrong_is_named() {
    let error = |response: &str| whole(response.as_bytes()).unwrap_err().to_string();
    assert_eq!(error("SSH-2.0-OpenSSH_9.2\r\n"), "malformed HTTP response \"SSH-2.0-OpenSSH_9.2\"");
    let length = |lines: &str| error(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n"));
    assert_eq!(length("Content-Length: -1\r\n"), "bad Content-Length \"-1\"");
    assert_eq!(length("Content-Length: 1\r\nContent-Length: 2\r\n"), "bad Content-Length \"2\"");
    assert_eq!(
        length("Content-Length: 99999999999999999999\r\n"),
        "bad Content-Length \"99999999999999999999\""
    );
    assert_eq!(length("Transfer-Encoding: gzip\r\n"), "unsupported transfer encoding: \"gzip\"");
    let chunk = |body: &str| error(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
    for body in ["x\r\n", "\r\n", "1\r\nab\r\n", "fffffffffffffffff\r\n", "1\r\na\rb"] {
        assert_eq!(chunk(body), "malformed chunked encoding", "{body:?}");
    }
    let flood = format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(3000));
    assert_eq!(error(&format!("{flood}\r\n")), "server sent more than 2048 headers; aborted");
    let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(HEAD_MAX));
    let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(HEAD_MAX / 24);
    for too_long in [long, endless] {
        assert_eq!(error(&too_long), format!("server response headers exceeded {HEAD_MAX} bytes; aborted"));
    }
}

fn response() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let body = prop::collection::vec(any::<u8>(), 0..300);
    let headers = prop::collection::vec("[A-Za-z][A-Za-z-]{0,10}", 0..6);
    (body, headers, 200u16..600, prop::option::of(1usize..50)).prop_map(|(body, headers, status, chunk)| {
        let status = if matches!(status, 204 | 304) { 200 } else { status };
        let mut bytes = format!("HTTP/1.1 {status} Some Thing\r\n").into_bytes();
        for name in headers {
            bytes.extend_from_slice(format!("X-{name}: value\r\n").as_bytes());
        }
        match chunk {
            None => {
                bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(&body);
            }
            Some(size) => {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(size) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        (bytes, body)
    })
}

/// Cuts bytes at any places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn a_response_is_the_same_however_it_is_cut(
        (bytes, body) in response(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let at_once = whole(&bytes).unwrap();
        prop_assert_eq!(&at_once.body, &body);
        prop_assert_eq!(at_once.left.as_deref(), Some(&b""[..]));
        prop_assert_eq!(read(&cut(&bytes, &places), Wanted::default()).unwrap(), at_once);
    }

    #[test]
    fn damaged_responses_are_read_or_refused_but_never_more_than_there_is(
        (mut bytes, _) in response(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let length = bytes.len();
        if let Ok(read) = read(&cut(&bytes, &places), Wanted::default()) {
            prop_assert!(read.body.len() + read.left.map_or(0, |left| left.len()) <= length);
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        start in prop::sample::select(vec!["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]),
    ) {
        let _ = whole(&[start.as_bytes(), &bytes].concat());
    }
}
