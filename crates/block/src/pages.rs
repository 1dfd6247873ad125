//! Column chunks as pages, unpacked by one zstd context per thread.
//!
//! The Parquet crate makes a compressor and a decompressor for every column chunk that it reads: 33 us,
//! which is most of a trace by id and a tenth of a scan. So it is told that the chunk is not compressed,
//! and the pages that it hands out are unpacked here.

use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::arrow_reader::{RowGroups, RowSelection};
use parquet::basic::Compression;
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

use crate::error::Error;
use crate::pieces::VerifiedFile;

/// No page is larger when unpacked: Parquet's own sizes are 31 bits.
const PAGE_BYTES_MAX: usize = i32::MAX as usize;

fn unpack(packed: &[u8]) -> Result<Bytes> {
    crate::unpack::unpack(packed, PAGE_BYTES_MAX).map_err(ParquetError::from)
}

/// The pages of one column chunk.
struct Pages<R: ChunkReader> {
    stored: SerializedPageReader<R>,
    is_packed: bool,
}

impl<R: ChunkReader> Pages<R> {
    fn unpacked(&self, page: Page) -> Result<Page> {
        if !self.is_packed {
            return Ok(page);
        }
        Ok(match page {
            Page::DictionaryPage { buf, num_values, encoding, is_sorted } => {
                Page::DictionaryPage { buf: unpack(&buf)?, num_values, encoding, is_sorted }
            }
            Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics } => {
                let buf = unpack(&buf)?;
                Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics }
            }
            // Blocks have V1 pages.
            Page::DataPageV2 { .. } => return Err(ParquetError::General("a V2 data page".to_owned())),
        })
    }
}

impl<R: ChunkReader> Iterator for Pages<R> {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl<R: ChunkReader> PageReader for Pages<R> {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.stored.get_next_page()?;
        page.map(|page| self.unpacked(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.stored.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.stored.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.stored.at_record_boundary()
    }
}

/// Parts of a column chunk in memory, addressed as in the file.
struct LoadedChunk {
    /// Ascending: where each lies, and its bytes.
    parts: Vec<(u64, Bytes)>,
}

impl Length for LoadedChunk {
    fn len(&self) -> u64 {
        self.parts.last().map_or(0, |(start, bytes)| start + bytes.len() as u64)
    }
}

impl LoadedChunk {
    fn slice(&self, start: u64, length: Option<usize>) -> Result<Bytes> {
        let outside = || ParquetError::EOF(format!("offset {start} lies outside what was read of the column chunk"));
        let part = self.parts.iter().rev().find(|(part_start, _)| *part_start <= start);
        let (part_start, bytes) = part.ok_or_else(outside)?;
        let from = usize::try_from(start - part_start)?;
        let to = length.map_or(Some(bytes.len()), |length| from.checked_add(length));
        let to = to.filter(|to| from <= *to && *to <= bytes.len()).ok_or_else(outside)?;
        Ok(bytes.slice(from..to))
    }
}

impl ChunkReader for LoadedChunk {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        self.slice(start, None).map(Cursor::new)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.slice(start, Some(length))
    }
}

/// One `spans.parquet`, shared by readers.
#[derive(Clone)]
pub(crate) struct SpansFile(pub(crate) Arc<VerifiedFile>);

impl Length for SpansFile {
    fn len(&self) -> u64 {
        Length::len(&*self.0)
    }
}

impl ChunkReader for SpansFile {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        self.0.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.0.get_bytes(start, length)
    }
}

/// Column chunks of one row group, or those of their pages that are wanted, in memory.
pub(crate) struct GroupChunks<'a> {
    metadata: &'a ParquetMetaData,
    group: usize,
    chunks: Vec<Chunk>,
}

struct Chunk {
    column: usize,
    loaded: Arc<LoadedChunk>,
    /// Absent when all of the chunk is there.
    locations: Option<Vec<PageLocation>>,
}

impl<'a> GroupChunks<'a> {
    /// Reads columns, whole or the pages with selected rows, in one request to the file: where files are far
    /// away, one is what a trace costs.
    pub(crate) fn load(
        file: &SpansFile,
        metadata: &'a ParquetMetaData,
        group: usize,
        columns: &[usize],
        selection: Option<&RowSelection>,
    ) -> std::result::Result<Self, Error> {
        let mut ranges = Vec::new();
        let mut wanted = Vec::with_capacity(columns.len());
        for column in columns {
            let first = ranges.len();
            let (start, length) = metadata.row_group(group).column(*column).byte_range();
            let chunk = start..start.saturating_add(length);
            let offsets = metadata.offset_index().and_then(|index| index.get(group)?.get(*column));
            let pages = selection.zip(offsets).map(|(selection, offsets)| (selection, offsets.page_locations()));
            let locations = match pages {
                Some((selection, pages)) => {
                    ranges.extend(dictionary(&chunk, pages));
                    ranges.extend(selection.scan_ranges(pages));
                    Some(pages.clone())
                }
                None => {
                    ranges.push(chunk);
                    None
                }
            };
            wanted.push((*column, first..ranges.len(), locations));
        }
        let read = file.0.read(&ranges)?;
        let chunk = |(column, own, locations): (usize, Range<usize>, _)| {
            let parts = own.map(|index| (ranges[index].start, read[index].clone())).collect();
            Chunk { column, loaded: Arc::new(LoadedChunk { parts }), locations }
        };
        Ok(Self { metadata, group, chunks: wanted.into_iter().map(chunk).collect() })
    }

    fn row_group(&self) -> &RowGroupMetaData {
        self.metadata.row_group(self.group)
    }

    /// The pages of a column that was loaded, unpacked.
    pub(crate) fn pages(&self, column: usize) -> Result<Box<dyn PageReader>> {
        let missing = || ParquetError::General(format!("column {column} was not read"));
        let chunk = self.chunks.iter().find(|chunk| chunk.column == column).ok_or_else(missing)?;
        let stored = self.row_group().column(column);
        let is_packed = matches!(stored.compression(), Compression::ZSTD(_));
        let described = match is_packed {
            true => stored.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?,
            false => stored.clone(),
        };
        let (loaded, locations) = (Arc::clone(&chunk.loaded), chunk.locations.clone());
        let stored = SerializedPageReader::new(loaded, &described, self.num_rows(), locations)?;
        Ok(Box::new(Pages { stored, is_packed }))
    }
}

/// The dictionary page of a chunk, which comes before its first data page.
fn dictionary(chunk: &Range<u64>, pages: &[PageLocation]) -> Option<Range<u64>> {
    let first = u64::try_from(pages.first()?.offset).ok()?;
    (chunk.start < first).then_some(chunk.start..first)
}

impl RowGroups for GroupChunks<'_> {
    fn num_rows(&self) -> usize {
        usize::try_from(self.row_group().num_rows()).unwrap_or(0)
    }

    fn column_chunks(&self, column: usize) -> Result<Box<dyn PageIterator>> {
        Ok(Box::new(OneChunk(Some(self.pages(column)?))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::once(self.row_group()))
    }

    fn metadata(&self) -> &ParquetMetaData {
        self.metadata
    }
}

struct OneChunk(Option<Box<dyn PageReader>>);

impl Iterator for OneChunk {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(Ok)
    }
}

impl PageIterator for OneChunk {}

/// The column chunks of one row group of a file that is in memory, whole.
pub(crate) struct TableChunks<'a> {
    pub(crate) file: &'a Bytes,
    pub(crate) metadata: &'a ParquetMetaData,
    pub(crate) group: usize,
}

impl RowGroups for TableChunks<'_> {
    fn num_rows(&self) -> usize {
        usize::try_from(self.metadata.row_group(self.group).num_rows()).unwrap_or(0)
    }

    fn column_chunks(&self, column: usize) -> Result<Box<dyn PageIterator>> {
        let stored = self.metadata.row_group(self.group).column(column);
        let is_packed = matches!(stored.compression(), Compression::ZSTD(_));
        let plain = stored.clone().into_builder().set_compression(Compression::UNCOMPRESSED);
        let described = if is_packed { plain.build()? } else { stored.clone() };
        let stored = SerializedPageReader::new(Arc::new(self.file.clone()), &described, self.num_rows(), None)?;
        Ok(Box::new(OneChunk(Some(Box::new(Pages { stored, is_packed })))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::once(self.metadata.row_group(self.group)))
    }

    fn metadata(&self) -> &ParquetMetaData {
        self.metadata
    }
}
