//! The table of what-if results as a Parquet file: one row group, one plain page for each column, no compression
//! (format 2.10 of apache/parquet-format; its metadata is Thrift's compact protocol). The `parquet` crate is far
//! more than one table of a few columns needs.

use ::whatif::results::Results;

use super::table::{Cells, Table};

const MAGIC: &[u8; 4] = b"PAR1";
/// Numbers of the format: physical types, encodings, repetition.
const BOOLEAN: i64 = 0;
const INT64: i64 = 2;
const DOUBLE: i64 = 5;
const BYTE_ARRAY: i64 = 6;
const PLAIN: i64 = 0;
const RLE: i64 = 3;
const UTF8: i64 = 0;

/// The results as a Parquet file: the table of [`super::csv`], with types.
pub fn parquet(results: &Results) -> Vec<u8> {
    let table = Table::of(results);
    let rows = table.rows() as i64;
    let mut file = MAGIC.to_vec();
    let chunks: Vec<Chunk> = table.columns.iter().map(|(_, cells)| append(&mut file, cells, rows)).collect();
    let metadata = metadata(&table, &chunks, rows);
    file.extend_from_slice(&metadata);
    file.extend_from_slice(&(metadata.len() as u32).to_le_bytes());
    file.extend_from_slice(MAGIC);
    file
}

/// Where a column is.
struct Chunk {
    start: i64,
    size: i64,
}

/// Appends a column's page.
fn append(file: &mut Vec<u8>, cells: &Cells, rows: i64) -> Chunk {
    let start = file.len();
    let page = page(cells);
    let mut header = Struct::default();
    header.number(1, 0).number(2, page.len() as i64).number(3, page.len() as i64);
    let mut data = Struct::default();
    data.number(1, rows).number(2, PLAIN).number(3, RLE).number(4, RLE);
    header.structure(5, data);
    file.extend_from_slice(&header.end());
    file.extend_from_slice(&page);
    Chunk { start: start as i64, size: (file.len() - start) as i64 }
}

fn physical(cells: &Cells) -> i64 {
    match cells {
        Cells::Text(_) => BYTE_ARRAY,
        Cells::Flag(_) => BOOLEAN,
        Cells::Count(_) => INT64,
        Cells::Number(_) => DOUBLE,
    }
}

/// A page's bytes: which cells are there, where some may be missing, and their values.
fn page(cells: &Cells) -> Vec<u8> {
    let mut page = Vec::new();
    match cells {
        Cells::Text(cells) => {
            for text in cells {
                page.extend_from_slice(&(text.len() as u32).to_le_bytes());
                page.extend_from_slice(text.as_bytes());
            }
        }
        Cells::Flag(cells) => {
            let byte = |flags: &[bool]| flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag));
            page.extend(cells.chunks(8).map(byte));
        }
        Cells::Count(cells) => page.extend(cells.iter().flat_map(|count| count.to_le_bytes())),
        Cells::Number(cells) => {
            let mut levels = Vec::new();
            for run in cells.chunk_by(|left, right| left.is_some() == right.is_some()) {
                varint(&mut levels, (run.len() as u64) << 1);
                levels.push(u8::from(run[0].is_some()));
            }
            page.extend_from_slice(&(levels.len() as u32).to_le_bytes());
            page.extend_from_slice(&levels);
            page.extend(cells.iter().flatten().flat_map(|number| number.to_le_bytes()));
        }
    }
    page
}

fn metadata(table: &Table, chunks: &[Chunk], rows: i64) -> Vec<u8> {
    let mut root = Struct::default();
    root.text(4, "results").number(5, table.columns.len() as i64);
    let mut schema = vec![root];
    let mut columns = Vec::new();
    for ((name, cells), chunk) in table.columns.iter().zip(chunks) {
        let mut element = Struct::default();
        let is_optional = matches!(cells, Cells::Number(_));
        element.number(1, physical(cells)).number(3, i64::from(is_optional)).text(4, name);
        if let Cells::Text(_) = cells {
            element.number(6, UTF8);
        }
        schema.push(element);
        let mut column = Struct::default();
        column
            .number(1, physical(cells))
            .numbers(2, &[PLAIN, RLE])
            .texts(3, &[name])
            .number(4, 0)
            .long(5, rows)
            .long(6, chunk.size)
            .long(7, chunk.size)
            .long(9, chunk.start);
        let mut place = Struct::default();
        place.long(2, chunk.start).structure(3, column);
        columns.push(place);
    }
    let mut group = Struct::default();
    group.structures(1, columns).long(2, chunks.iter().map(|chunk| chunk.size).sum()).long(3, rows);
    let mut file = Struct::default();
    file.number(1, 1).structures(2, schema).long(3, rows).structures(4, vec![group]);
    file.text(6, concat!("coalmine version ", env!("CARGO_PKG_VERSION")));
    file.end()
}

/// A structure in Thrift's compact protocol, field by ascending field.
#[derive(Default)]
struct Struct {
    bytes: Vec<u8>,
    last: u8,
}

/// Types of the compact protocol.
const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

impl Struct {
    /// All fields here have numbers at most fifteen apart.
    fn field(&mut self, field: u8, kind: u8) {
        self.bytes.push((field - self.last) << 4 | kind);
        self.last = field;
    }

    fn number(&mut self, field: u8, value: i64) -> &mut Self {
        self.field(field, I32);
        varint(&mut self.bytes, zigzag(value));
        self
    }

    fn long(&mut self, field: u8, value: i64) -> &mut Self {
        self.field(field, I64);
        varint(&mut self.bytes, zigzag(value));
        self
    }

    fn text(&mut self, field: u8, text: &str) -> &mut Self {
        self.field(field, BINARY);
        binary(&mut self.bytes, text);
        self
    }

    fn structure(&mut self, field: u8, value: Struct) -> &mut Self {
        self.field(field, STRUCT);
        self.bytes.extend(value.end());
        self
    }

    fn list(&mut self, field: u8, kind: u8, length: usize) {
        self.field(field, LIST);
        match length {
            0..15 => self.bytes.push((length as u8) << 4 | kind),
            _ => {
                self.bytes.push(0xf0 | kind);
                varint(&mut self.bytes, length as u64);
            }
        }
    }

    fn numbers(&mut self, field: u8, values: &[i64]) -> &mut Self {
        self.list(field, I32, values.len());
        values.iter().for_each(|value| varint(&mut self.bytes, zigzag(*value)));
        self
    }

    fn texts(&mut self, field: u8, values: &[&str]) -> &mut Self {
        self.list(field, BINARY, values.len());
        values.iter().for_each(|text| binary(&mut self.bytes, text));
        self
    }

    fn structures(&mut self, field: u8, values: Vec<Struct>) -> &mut Self {
        self.list(field, STRUCT, values.len());
        values.into_iter().for_each(|value| self.bytes.extend(value.end()));
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn binary(bytes: &mut Vec<u8>, text: &str) {
    varint(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}
