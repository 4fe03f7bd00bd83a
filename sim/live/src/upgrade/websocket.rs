//! The server's side of WebSocket (RFC 6455), as far as `exec` and `port-forward` need it: binary messages.

use std::io;

use base64::Engine as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// What RFC 6455 appends to the client's key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The largest message that is taken.
const MESSAGE_MAX: usize = 16 << 20;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The answer to a client's `Sec-WebSocket-Key`.
pub(super) fn accept_key(key: &str) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key.as_bytes());
    digest.update(GUID);
    base64::engine::general_purpose::STANDARD.encode(digest.finish())
}

/// A frame to send: opcode and content.
type Frame = (u8, Vec<u8>);

/// Sends messages; the connection closes when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Sender(mpsc::Sender<Frame>);

impl Sender {
    /// Sends a binary message; a peer that has gone away is no error.
    pub(super) async fn send(&self, message: Vec<u8>) {
        let _ = self.0.send((BINARY, message)).await;
    }
}

/// Receives messages.
pub(super) struct Receiver<R> {
    reader: R,
    control: mpsc::WeakSender<Frame>,
}

/// Both ends of a connection whose handshake is done.
pub(super) fn connection<S>(stream: S) -> (Sender, Receiver<tokio::io::ReadHalf<S>>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let (frames, queue) = mpsc::channel(64);
    tokio::spawn(write(writer, queue));
    let control = frames.downgrade();
    (Sender(frames), Receiver { reader, control })
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Frame>) -> io::Result<()> {
    while let Some((opcode, content)) = queue.recv().await {
        writer.write_all(&head(opcode, content.len())).await?;
        writer.write_all(&content).await?;
        writer.flush().await?;
        if opcode == CLOSE {
            return writer.shutdown().await;
        }
    }
    // 1000: normal closure.
    writer.write_all(&[0x80 | CLOSE, 2, 0x03, 0xe8]).await?;
    writer.shutdown().await
}

fn head(opcode: u8, length: usize) -> Vec<u8> {
    let mut head = vec![0x80 | opcode];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => head.push(short),
        (_, Ok(medium)) => {
            head.push(126);
            head.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            head.push(127);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    head
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    /// The next message; `None` when the peer closes.
    pub(super) async fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        loop {
            let (last, opcode, content) = self.frame().await?;
            match opcode {
                PING => {
                    if let Some(control) = self.control.upgrade() {
                        let _ = control.send((PONG, content)).await;
                    }
                }
                PONG => {}
                CLOSE => {
                    if let Some(control) = self.control.upgrade() {
                        let _ = control.send((CLOSE, content)).await;
                    }
                    return Ok(None);
                }
                CONTINUATION | TEXT | BINARY => {
                    if message.len() + content.len() > MESSAGE_MAX {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
                    }
                    message.extend_from_slice(&content);
                    if last {
                        return Ok(Some(message));
                    }
                }
                other => {
                    let problem = format!("frames of type {other} are unknown");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
                }
            }
        }
    }

    async fn frame(&mut self) -> io::Result<(bool, u8, Vec<u8>)> {
        let first = self.reader.read_u8().await?;
        let second = self.reader.read_u8().await?;
        let length = match second & 0x7f {
            126 => u64::from(self.reader.read_u16().await?),
            127 => self.reader.read_u64().await?,
            short => u64::from(short),
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= MESSAGE_MAX);
        let Some(length) = length else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
        };
        let mut mask = [0; 4];
        if second & 0x80 == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a client's frame is not masked"));
        }
        self.reader.read_exact(&mut mask).await?;
        let mut content = vec![0; length];
        self.reader.read_exact(&mut content).await?;
        for (byte, key) in content.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        Ok((first & 0x80 != 0, first & 0x0f, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn lengths_take_as_many_bytes_as_they_need() {
        assert_eq!(head(BINARY, 125), [0x82, 125]);
        assert_eq!(head(BINARY, 200), [0x82, 126, 0, 200]);
        assert_eq!(head(BINARY, 70_000), [0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    }
}
