//! Column chunks taken apart, page by page, into the arrays that scans work on.
//!
//! ```text
//!   page      levels | values                    levels only in columns of which rows may lack a value
//!   levels    length of what follows (4 bytes), then runs of bits: whether a row has a value
//!   streams   first bytes of all values, second bytes of all values, ..        see [`super::byte_streams`]
//!   codes     width in bits (1 byte), then runs of numbers of that width
//!   plain     length (4 bytes), bytes, length, bytes, ..
//!   run       varint n: n / 2 times the number that follows; or, if n is odd, n / 2 groups of eight numbers, packed
//! ```
//!
//! The Parquet crate's readers go value by value through several layers that know nothing of the page's end; here
//! every buffer is made once, as large as it gets. What is stored in yet another way, or is not as it should be, is
//! left to that crate: it reads everything, and says what is wrong.
//!
//! Source: the Parquet format, `Encodings.md` (2.11), V1 data pages.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, BinaryArray, Float64Array, Int32Array, Int64Array, StringArray, TimestampNanosecondArray,
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, TimeUnit};
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::errors::Result;
use spoor_model::bits::Bits;

use super::byte_streams::{Streamed, join_page};
use crate::open::{StoredAs, StoredLayout};

/// The values of a column at the rows of a row group, or at some of them.
#[derive(Debug, Clone)]
pub(super) enum Stored {
    /// Texts by code. What stands where there is no value is no code, and may lie past the end.
    Codes { codes: Int32Array, entries: StringArray },
    /// Of any other type than dictionaries.
    Array(ArrayRef),
}

impl Stored {
    /// From what the Parquet crate made of a column.
    pub(super) fn of(array: ArrayRef) -> Self {
        match array.data_type() {
            DataType::Dictionary(..) => {
                let coded = array.as_dictionary::<Int32Type>();
                Self::Codes { codes: coded.keys().clone(), entries: coded.values().as_string::<i32>().clone() }
            }
            _ => Self::Array(array),
        }
    }
}

/// Reads a column chunk; of plain texts and bytes at least the rows of `wanted`, others seem to have none. `None` when
/// it is to be left to the Parquet crate.
pub(super) fn read(pages: &mut dyn PageReader, stored: StoredAs<'_>, wanted: &Bits) -> Result<Option<Stored>> {
    let row_count = wanted.len();
    let mut chunk = Chunk { pages, is_nullable: stored.is_nullable, present: Bits::none(row_count) };
    match stored.layout {
        StoredLayout::Streams => numbers(&mut chunk, stored.data_type).map(|array| array.map(Stored::Array)),
        StoredLayout::Codes => {
            let mut codes = Codes { entries: None, codes: Vec::with_capacity(row_count), packed: Vec::new() };
            let is_read = chunk.read(&mut codes)?;
            Ok(codes.entries.filter(|_| is_read).map(|entries| {
                let codes = Int32Array::new(codes.codes.into(), nulls(&chunk.present));
                Stored::Codes { codes, entries }
            }))
        }
        StoredLayout::Plain => {
            let mut plain = Plain { wanted, texts: Texts::with_rows(row_count) };
            if !chunk.read(&mut plain)? {
                return Ok(None);
            }
            let texts = plain.texts;
            Ok(match stored.data_type {
                DataType::Utf8 => texts.finish(row_count).map(|texts| Stored::Array(Arc::new(texts))),
                _ => texts.finish_bytes(row_count).map(|bytes| Stored::Array(Arc::new(bytes))),
            })
        }
    }
}

/// The values of some rows, ascending, of a column of values of `N` bytes of which every row has one. `None` when it
/// is to be left to the Parquet crate.
pub(super) fn fixed_at<const N: usize>(
    pages: &mut dyn PageReader,
    rows: impl Iterator<Item = usize>,
) -> Result<Option<Vec<[u8; N]>>> {
    let mut rows = rows.peekable();
    let mut found = Vec::with_capacity(rows.size_hint().0);
    let mut end = 0;
    while rows.peek().is_some()
        && let Some(page) = pages.get_next_page()?
    {
        let Page::DataPage { buf, num_values, encoding: Encoding::PLAIN, .. } = page else { return Ok(None) };
        let (values, rest) = buf.as_chunks::<N>();
        if values.len() != num_values as usize || !rest.is_empty() {
            return Ok(None);
        }
        let start = end;
        end += values.len();
        while let Some(row) = rows.next_if(|row| *row < end) {
            found.push(values[row - start]);
        }
    }
    Ok(rows.peek().is_none().then_some(found))
}

fn numbers(chunk: &mut Chunk<'_>, data_type: &DataType) -> Result<Option<ArrayRef>> {
    Ok(match data_type {
        DataType::Int32 => chunk.joined::<i32>()?.map(|(values, nulls)| Arc::new(Int32Array::new(values, nulls)) as _),
        DataType::Int64 => chunk.joined::<i64>()?.map(|(values, nulls)| Arc::new(Int64Array::new(values, nulls)) as _),
        DataType::Float64 => chunk.joined::<i64>()?.map(|(values, nulls)| {
            let values: Vec<f64> = values.iter().map(|bits| f64::from_bits(*bits as u64)).collect();
            Arc::new(Float64Array::new(values.into(), nulls)) as _
        }),
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => chunk.joined::<i64>()?.map(|(values, nulls)| {
            Arc::new(TimestampNanosecondArray::new(values, nulls).with_timezone_opt(zone.clone())) as _
        }),
        _ => None,
    })
}

/// `None` when every row is in.
pub(super) fn nulls(present: &Bits) -> Option<NullBuffer> {
    let is_in = BooleanBuffer::new(Buffer::from_vec(present.words().to_vec()), 0, present.len());
    Some(NullBuffer::new(is_in)).filter(|nulls| nulls.null_count() > 0)
}

/// A column chunk that is being read.
struct Chunk<'p> {
    pages: &'p mut dyn PageReader,
    is_nullable: bool,
    /// Rows that have a value.
    present: Bits,
}

/// What takes in the values of pages. Each answers `None` to what it does not understand.
trait Sink {
    /// The entries that codes stand for.
    fn take_dictionary(&mut self, _page: &[u8], _count: usize) -> Option<()> {
        None
    }

    /// The values of the page's rows that are `present`, `count` of them. Pages come in the order of rows.
    fn take(&mut self, page: Values<'_>, present: &Bits) -> Option<()>;
}

/// The values of a page.
struct Values<'p> {
    rows: Range<usize>,
    /// How many rows have a value.
    count: usize,
    bytes: &'p [u8],
    encoding: Encoding,
}

impl Chunk<'_> {
    /// Whether everything was understood.
    fn read(&mut self, sink: &mut impl Sink) -> Result<bool> {
        let row_count = self.present.len();
        let mut end = 0;
        while let Some(page) = self.pages.get_next_page()? {
            let taken = match page {
                Page::DictionaryPage { buf, num_values, encoding, .. } if is_plain(encoding) => {
                    sink.take_dictionary(&buf, num_values as usize)
                }
                Page::DataPage { buf, num_values, encoding, def_level_encoding, .. } => {
                    let rows = end..end + num_values as usize;
                    end = rows.end;
                    match rows.end <= row_count && (!self.is_nullable || def_level_encoding == Encoding::RLE) {
                        true => self.read_page(&buf, rows, encoding, sink),
                        false => None,
                    }
                }
                _ => None,
            };
            if taken.is_none() {
                return Ok(false);
            }
        }
        Ok(end == row_count)
    }

    fn read_page(&mut self, page: &[u8], rows: Range<usize>, encoding: Encoding, sink: &mut impl Sink) -> Option<()> {
        let bytes = match self.is_nullable {
            true => read_levels(page, rows.clone(), &mut self.present)?,
            false => {
                self.present.insert_range(rows.clone());
                page
            }
        };
        let count = self.present.count_in(rows.clone());
        sink.take(Values { rows, count, bytes, encoding }, &self.present)
    }

    fn joined<T: Streamed + ArrowNativeType>(&mut self) -> Result<Option<(ScalarBuffer<T>, Option<NullBuffer>)>> {
        let mut streams = Streams { values: Vec::with_capacity(self.present.len()), joined: Vec::new() };
        let is_read = self.read(&mut streams)?;
        Ok(is_read.then(|| (streams.values.into(), nulls(&self.present))))
    }
}

fn is_plain(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::PLAIN | Encoding::PLAIN_DICTIONARY)
}

/// Numbers as byte streams.
struct Streams<T> {
    /// As many as rows were read.
    values: Vec<T>,
    /// Those of one page.
    joined: Vec<T>,
}

impl<T: Streamed> Sink for Streams<T> {
    fn take(&mut self, page: Values<'_>, present: &Bits) -> Option<()> {
        let is_sound = page.encoding == Encoding::BYTE_STREAM_SPLIT && page.bytes.len() == page.count * T::BYTES;
        if !is_sound {
            return None;
        }
        if page.count == page.rows.len() {
            join_page(page.bytes, &mut self.values);
            return Some(());
        }
        self.joined.clear();
        join_page(page.bytes, &mut self.joined);
        spread(&self.joined, page.rows, present, &mut self.values);
        Some(())
    }
}

/// Adds values for rows: one of `values` to each that is present, in their order.
fn spread<T: Copy + Default>(values: &[T], rows: Range<usize>, present: &Bits, into: &mut Vec<T>) {
    into.resize(rows.end, T::default());
    let mut next = 0;
    present.for_each_in(rows, |row| {
        into[row] = values[next];
        next += 1;
    });
}

/// Codes of a dictionary of texts.
struct Codes {
    entries: Option<StringArray>,
    /// As many as rows were read.
    codes: Vec<i32>,
    /// Those of one page.
    packed: Vec<i32>,
}

impl Sink for Codes {
    fn take_dictionary(&mut self, page: &[u8], count: usize) -> Option<()> {
        let mut texts = Texts::with_rows(count);
        let mut rest = page;
        for entry in 0..count {
            texts.push(entry, next_text(&mut rest)?)?;
        }
        self.entries = Some(texts.finish(count)?);
        Some(())
    }

    fn take(&mut self, page: Values<'_>, present: &Bits) -> Option<()> {
        let is_coded = matches!(page.encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY);
        let entry_count = self.entries.as_ref().filter(|_| is_coded)?.len();
        if page.count == 0 {
            self.codes.resize(page.rows.end, 0);
            return Some(());
        }
        let (width, mut runs) = page.bytes.split_first()?;
        self.packed.clear();
        while self.packed.len() < page.count {
            let left = page.count - self.packed.len();
            match Run::next(&mut runs, u32::from(*width))? {
                Run::Repeated { number, count } => {
                    let code = i32::try_from(number).ok()?;
                    self.packed.resize(self.packed.len() + count.min(left), code);
                }
                Run::Packed(packed) => unpack(packed, u32::from(*width), left, &mut self.packed),
            }
        }
        // As unsigned numbers, so that negative ones are too large.
        let greatest = self.packed.iter().fold(0, |greatest, code| greatest.max(*code as u32));
        if greatest as usize >= entry_count {
            return None;
        }
        match page.count == page.rows.len() {
            true => self.codes.extend_from_slice(&self.packed),
            false => spread(&self.packed, page.rows, present, &mut self.codes),
        }
        Some(())
    }
}

/// Plain texts or bytes, those of some rows.
struct Plain<'w> {
    wanted: &'w Bits,
    texts: Texts,
}

impl Sink for Plain<'_> {
    fn take(&mut self, page: Values<'_>, present: &Bits) -> Option<()> {
        if page.encoding != Encoding::PLAIN {
            return None;
        }
        let words = page.rows.start / 64..page.rows.end.div_ceil(64);
        // The first and the last may have rows of other pages, too: then a page is read in vain.
        let mut both = present.words()[words.clone()].iter().zip(&self.wanted.words()[words]);
        if both.all(|(present, wanted)| present & wanted == 0) {
            return Some(());
        }
        let (mut rest, mut is_sound) = (page.bytes, true);
        present.for_each_in(page.rows, |row| match next_text(&mut rest) {
            Some(text) if self.wanted.contains(row) => is_sound &= self.texts.push(row, text).is_some(),
            Some(_) => {}
            None => is_sound = false,
        });
        is_sound.then_some(())
    }
}

fn next_text<'p>(rest: &mut &'p [u8]) -> Option<&'p [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let (text, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = behind;
    Some(text)
}

/// Texts of some rows, in their order, as Arrow has them.
pub(super) struct Texts {
    /// Where the text of each row begins, up to the last one pushed.
    starts: Vec<i32>,
    bytes: Vec<u8>,
    present: Bits,
}

impl Texts {
    /// None yet.
    pub(super) fn with_rows(row_count: usize) -> Self {
        Self { starts: Vec::with_capacity(row_count + 1), bytes: Vec::new(), present: Bits::none(row_count) }
    }

    /// Adds the text of a row, which is behind those before. `None` when there are more bytes than an array may have.
    #[inline]
    pub(super) fn push(&mut self, row: usize, text: &[u8]) -> Option<()> {
        let start = i32::try_from(self.bytes.len()).ok()?;
        self.starts.resize(row + 1, start);
        self.bytes.extend_from_slice(text);
        self.present.insert(row);
        Some(())
    }

    /// `None` when a text is not UTF-8.
    pub(super) fn finish(self, row_count: usize) -> Option<StringArray> {
        let nulls = nulls(&self.present);
        let (offsets, bytes) = self.parts(row_count)?;
        StringArray::try_new(offsets, bytes, nulls).ok()
    }

    fn finish_bytes(self, row_count: usize) -> Option<BinaryArray> {
        let nulls = nulls(&self.present);
        let (offsets, bytes) = self.parts(row_count)?;
        BinaryArray::try_new(offsets, bytes, nulls).ok()
    }

    fn parts(mut self, row_count: usize) -> Option<(OffsetBuffer<i32>, Buffer)> {
        self.starts.resize(row_count + 1, i32::try_from(self.bytes.len()).ok()?);
        Some((OffsetBuffer::new(self.starts.into()), Buffer::from_vec(self.bytes)))
    }
}

/// Some numbers of the same width, one after the other.
enum Run<'p> {
    Repeated {
        number: u32,
        /// Not zero.
        count: usize,
    },
    /// Groups of eight, each as many bytes as a number has bits; not empty.
    Packed(&'p [u8]),
}

impl<'p> Run<'p> {
    fn next(runs: &mut &'p [u8], width: u32) -> Option<Self> {
        if width > 32 {
            return None;
        }
        let head = next_varint(runs)?;
        let count = usize::try_from(head >> 1).ok().filter(|count| *count > 0)?;
        let (len, is_packed) = match head & 1 {
            1 => (count.checked_mul(width as usize)?, true),
            _ => (width.div_ceil(8) as usize, false),
        };
        let (bytes, behind) = runs.split_at_checked(len)?;
        *runs = behind;
        if is_packed {
            // Numbers without bits are all zero.
            return Some(if width == 0 { Self::Repeated { number: 0, count: count * 8 } } else { Self::Packed(bytes) });
        }
        let mut number = [0; 4];
        number[..len].copy_from_slice(bytes);
        Some(Self::Repeated { number: u32::from_le_bytes(number), count })
    }
}

fn next_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (byte, behind) = bytes.split_first()?;
        *bytes = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Adds numbers of 1 to 32 bits, at most `max`.
fn unpack(packed: &[u8], width: u32, max: usize, numbers: &mut Vec<i32>) {
    let width = width as usize;
    let mask = u64::MAX >> (64 - width);
    let at = |bytes: &[u8], bit: usize| {
        let word = u64::from_le_bytes(bytes[bit / 8..bit / 8 + 8].try_into().expect("8 bytes long"));
        (word >> (bit % 8) & mask) as i32
    };
    let count = (packed.len() * 8 / width).min(max);
    // A number ends at most 39 bits behind the byte in which it begins; near the end that is past what is there.
    let safe = (packed.len().saturating_sub(8) * 8 / width).min(count);
    numbers.extend((0..safe).map(|number| at(packed, number * width)));
    let tail_start = safe * width / 8;
    let mut tail = [0; 32];
    if count > safe {
        // At most 13 bytes, of which 8 are read from each that a number begins in.
        tail[..packed.len() - tail_start].copy_from_slice(&packed[tail_start..]);
        numbers.extend((safe..count).map(|number| at(&tail, number * width - tail_start * 8)));
    }
}

/// Reads the levels of a page's rows; what is left of the page are the values.
fn read_levels<'p>(page: &'p [u8], rows: Range<usize>, present: &mut Bits) -> Option<&'p [u8]> {
    let (length, rest) = page.split_first_chunk::<4>()?;
    let (mut runs, values) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let mut row = rows.start;
    while row < rows.end {
        match Run::next(&mut runs, 1)? {
            Run::Repeated { number, count } => {
                let end = rows.end.min(row + count);
                if number == 1 {
                    present.insert_range(row..end);
                }
                row = end;
            }
            Run::Packed(packed) => {
                for eight in packed.chunks(8) {
                    let mut word = [0; 8];
                    word[..eight.len()].copy_from_slice(eight);
                    let len = (eight.len() * 8).min(rows.end - row);
                    if len > 0 {
                        present.insert_word(row, u64::from_le_bytes(word) & (u64::MAX >> (64 - len)));
                    }
                    row += len;
                }
            }
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests;
