//! The server's side of SPDY/3.1, which kubectl still speaks to pods: several streams over one connection, each with
//! headers. Flow control is left out, as in the client's own library.

use std::collections::BTreeMap;
use std::io;

use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// The dictionary that header blocks are compressed with (SPDY/3, section 2.6.10.1).
const DICTIONARY: &[u8] = include_bytes!("spdy-dictionary.bin");
/// Its Adler-32, which a compressed stream names.
const DICTIONARY_ID: u32 = 0xe3c6_a7c2;
/// The window of the decompressor.
const WINDOW: usize = 32_768;
/// The longest frame that is taken.
const FRAME_MAX: usize = 1 << 20;
/// The most that goes into one data frame.
const DATA_MAX: usize = 32_768;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FIN: u8 = 1;

/// A stream that the client opened.
pub(super) struct Stream {
    /// Its headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What the client sends; ends with its side of the stream.
    pub incoming: mpsc::Receiver<Vec<u8>>,
    /// Sends to the client.
    pub outgoing: Outgoing,
}

/// The server's side of a stream.
pub(super) struct Outgoing {
    id: u32,
    frames: mpsc::Sender<Vec<u8>>,
}

impl Outgoing {
    pub(super) async fn send(&self, bytes: &[u8]) {
        for part in bytes.chunks(DATA_MAX) {
            let _ = self.frames.send(data_frame(self.id, 0, part)).await;
        }
    }

    /// Ends the server's side.
    pub(super) async fn finish(self) {
        let _ = self.frames.send(data_frame(self.id, FIN, &[])).await;
    }
}

/// Serves a connection; the streams that the client opens come out of the channel, until the client goes away.
pub(super) fn connection<S>(stream: S) -> mpsc::Receiver<Stream>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let (frames, queue) = mpsc::channel(64);
    let (streams, opened) = mpsc::channel(16);
    tokio::spawn(write(writer, queue));
    // A broken connection ends the streams: there is nobody to tell.
    tokio::spawn(async move { drop(read(reader, frames, streams).await) });
    opened
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(frame) = queue.recv().await {
        writer.write_all(&frame).await?;
        writer.flush().await?;
    }
    writer.shutdown().await
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    frames: mpsc::Sender<Vec<u8>>,
    streams: mpsc::Sender<Stream>,
) -> io::Result<()> {
    let mut headers = HeaderBlocks::new();
    let mut replied = false;
    let mut open: BTreeMap<u32, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
    loop {
        let mut head = [0; 8];
        reader.read_exact(&mut head).await?;
        let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let (flags, length) = (head[4], u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize);
        if length > FRAME_MAX {
            return Err(invalid("a frame is too long"));
        }
        let mut content = vec![0; length];
        reader.read_exact(&mut content).await?;
        if word & 0x8000_0000 == 0 {
            if let Some(stream) = open.get(&word)
                && !content.is_empty()
            {
                let _ = stream.send(content).await;
            }
            if flags & FIN != 0 {
                open.remove(&word);
            }
            continue;
        }
        match (word & 0xffff) as u16 {
            SYN_STREAM if content.len() >= 10 => {
                let id = u32::from_be_bytes([content[0], content[1], content[2], content[3]]) & 0x7fff_ffff;
                let headers = headers.read(&content[10..])?;
                let _ = frames.send(syn_reply(id, !replied)).await;
                replied = true;
                let (sender, incoming) = mpsc::channel(64);
                if flags & FIN == 0 {
                    open.insert(id, sender);
                }
                let outgoing = Outgoing { id, frames: frames.clone() };
                if streams.send(Stream { headers, incoming, outgoing }).await.is_err() {
                    return Ok(());
                }
            }
            RST_STREAM if content.len() >= 4 => {
                let id = u32::from_be_bytes([content[0], content[1], content[2], content[3]]) & 0x7fff_ffff;
                open.remove(&id);
            }
            PING => {
                let _ = frames.send([&head[..], &content].concat()).await;
            }
            GOAWAY => return Ok(()),
            // Settings, windows and later headers change nothing here.
            _ => {}
        }
    }
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

fn data_frame(id: u32, flags: u8, content: &[u8]) -> Vec<u8> {
    let mut frame = id.to_be_bytes().to_vec();
    frame.push(flags);
    frame.extend_from_slice(&(content.len() as u32).to_be_bytes()[1..]);
    frame.extend_from_slice(content);
    frame
}

/// A reply without headers. All header blocks of a connection are one compressed stream, which begins with the first.
fn syn_reply(id: u32, first: bool) -> Vec<u8> {
    let mut content = id.to_be_bytes().to_vec();
    if first {
        // Deflate with a 32 KiB window, and a dictionary.
        content.extend_from_slice(&[0x78, 0xbb]);
        content.extend_from_slice(&DICTIONARY_ID.to_be_bytes());
    }
    // One stored block with the number of headers, and an empty one: the end of a flush.
    content.extend_from_slice(&[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0]);
    content.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
    let mut frame = (0x8003_0000 | u32::from(SYN_REPLY)).to_be_bytes().to_vec();
    frame.push(0);
    frame.extend_from_slice(&(content.len() as u32).to_be_bytes()[1..]);
    frame.extend_from_slice(&content);
    frame
}

/// Decompresses the header blocks of one connection.
struct HeaderBlocks {
    inflate: Box<DecompressorOxide>,
    window: Vec<u8>,
    at: usize,
    begun: bool,
}

impl HeaderBlocks {
    fn new() -> Self {
        let mut window = vec![0; WINDOW];
        window[..DICTIONARY.len()].copy_from_slice(DICTIONARY);
        HeaderBlocks { inflate: Box::default(), window, at: DICTIONARY.len(), begun: false }
    }

    fn read(&mut self, mut block: &[u8]) -> io::Result<BTreeMap<String, String>> {
        if !self.begun {
            // The zlib header and the dictionary's name: the rest is plain deflate.
            block = block.get(6..).ok_or_else(|| invalid("a header block is too short"))?;
            self.begun = true;
        }
        let mut text = Vec::new();
        while !block.is_empty() {
            let flags = miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
            let (status, read, written) =
                decompress(&mut self.inflate, block, &mut self.window, self.at, flags);
            text.extend_from_slice(&self.window[self.at..self.at + written]);
            self.at = (self.at + written) % WINDOW;
            block = &block[read..];
            if (status as i32) < 0 || (read == 0 && written == 0) {
                return Err(invalid("a header block is not compressed as SPDY/3 wants it"));
            }
        }
        parse(&text).ok_or_else(|| invalid("a header block is cut short"))
    }
}

fn parse(mut text: &[u8]) -> Option<BTreeMap<String, String>> {
    let number = |text: &mut &[u8]| {
        let (first, rest) = text.split_first_chunk::<4>()?;
        *text = rest;
        usize::try_from(u32::from_be_bytes(*first)).ok()
    };
    let string = |text: &mut &[u8]| {
        let length = number(text)?;
        let (first, rest) = text.split_at_checked(length)?;
        *text = rest;
        Some(String::from_utf8_lossy(first).into_owned())
    };
    let mut headers = BTreeMap::new();
    for _ in 0..number(&mut text)? {
        let name = string(&mut text)?.to_ascii_lowercase();
        headers.insert(name, string(&mut text)?);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_header_blocks_that_the_other_side_can_read() {
        let mut blocks = HeaderBlocks::new();
        for (id, first) in [(1, true), (3, false), (5, false)] {
            let frame = syn_reply(id, first);
            assert_eq!(blocks.read(&frame[12..]).unwrap(), BTreeMap::new());
        }
        let mut blocks = HeaderBlocks::new();
        assert!(blocks.read(&[1, 2, 3]).is_err());
    }
}
