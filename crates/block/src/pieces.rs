//! Files in checked pieces: a checksum per 64 KiB, made while writing, verified at every read.
//!
//! Parquet has room for a checksum per page, but the Rust writer leaves it empty; whole-file
//! checksums would make a query read everything. Pieces cost 8 bytes per 64 KiB and 2 ms per 25 MB. Every time: a disk may
//! fail while a server runs, and what is read again was read from there again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use spoor_model::BlockId;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::damage::{Damages, Place};
use crate::error::Error;
use crate::files::{Awaited, BlockFile};
use crate::meta::FileMeta;

/// How many bytes one checksum covers; the last piece of a file may be shorter.
pub const PIECE_BYTES: usize = 64 * 1024;
/// A file goes to disk in steps of this many bytes while it is written: synced as one, 256 MiB held up an fsync of the log
/// beside it by 110 ms on a disk that writes 2 GB/s, and by seconds on slower ones.
const SYNC_STEP_BYTES: u64 = 4 << 20;

/// Passes bytes on to a file and notes the checksum of each piece.
pub(crate) struct PieceWriter {
    file: io::BufWriter<File>,
    path: PathBuf,
    hasher: Xxh3,
    in_piece_bytes: usize,
    size_bytes: u64,
    synced_bytes: u64,
    piece_checksums: String,
}

impl PieceWriter {
    pub(crate) fn create(path: PathBuf) -> Result<Self, Error> {
        let file = File::create_new(&path).map_err(|err| Error::io("create", &path, &err))?;
        Ok(Self {
            file: io::BufWriter::with_capacity(PIECE_BYTES, file),
            path,
            hasher: Xxh3::new(),
            in_piece_bytes: 0,
            size_bytes: 0,
            synced_bytes: 0,
            piece_checksums: String::new(),
        })
    }

    /// Bytes written so far.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn end_piece(&mut self) {
        self.piece_checksums.push_str(&format!("{:016x}", self.hasher.digest()));
        self.hasher.reset();
        self.in_piece_bytes = 0;
    }

    /// Makes the file durable and returns its description.
    pub(crate) fn finish(mut self) -> Result<FileMeta, Error> {
        if self.in_piece_bytes > 0 {
            self.end_piece();
        }
        self.file.flush().map_err(|err| Error::io("write", &self.path, &err))?;
        self.file.get_ref().sync_all().map_err(|err| Error::io("sync", &self.path, &err))?;
        let name = self.path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        Ok(FileMeta { name, size_bytes: self.size_bytes, piece_checksums: self.piece_checksums })
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE_BYTES - self.in_piece_bytes);
        self.file.write_all(&bytes[..count])?;
        self.hasher.update(&bytes[..count]);
        self.size_bytes += count as u64;
        self.in_piece_bytes += count;
        if self.in_piece_bytes == PIECE_BYTES {
            self.end_piece();
        }
        if self.size_bytes - self.synced_bytes >= SYNC_STEP_BYTES {
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
            self.synced_bytes = self.size_bytes;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What a file of a block must be: so many bytes, with a checksum (XXH3-64, seed 0) per 64 KiB.
#[derive(Debug, PartialEq, Eq)]
pub struct Pieces {
    size_bytes: u64,
    checksums: Box<[u64]>,
}

impl Pieces {
    /// `None` when the meta's checksums do not fit its size.
    fn of(meta: &FileMeta) -> Option<Self> {
        let checksums = parse_checksums(&meta.piece_checksums)?;
        let fits = checksums.len() as u64 == meta.size_bytes.div_ceil(PIECE_BYTES as u64);
        fits.then(|| Self { size_bytes: meta.size_bytes, checksums: checksums.into() })
    }

    /// A file with this content, for the tests of those who keep files.
    pub fn of_content(content: &[u8]) -> Self {
        Self { size_bytes: content.len() as u64, checksums: content.chunks(PIECE_BYTES).map(xxh3_64).collect() }
    }

    /// The size of the file.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// How many pieces the file has.
    pub fn count(&self) -> usize {
        self.checksums.len()
    }

    /// The pieces that a range of bytes lies in.
    pub fn covering(&self, range: &Range<u64>) -> Range<usize> {
        (range.start / PIECE_BYTES as u64) as usize..range.end.div_ceil(PIECE_BYTES as u64) as usize
    }

    /// The bytes of some pieces; the last piece of the file is shorter.
    pub fn bytes(&self, pieces: &Range<usize>) -> Range<u64> {
        let at = |piece: usize| (piece as u64 * PIECE_BYTES as u64).min(self.size_bytes);
        at(pieces.start)..at(pieces.end)
    }

    /// Whether these are the bytes of a piece; the error says what is wrong with them.
    pub fn verify(&self, piece: usize, bytes: &[u8]) -> Result<(), String> {
        let (want, got) = (self.checksums[piece], xxh3_64(bytes));
        match want == got {
            true => Ok(()),
            false => {
                let (start, length) = (piece * PIECE_BYTES, bytes.len());
                Err(format!("bytes {start}+{length}: checksum mismatch (want {want:016x}, got {got:016x})"))
            }
        }
    }
}

/// A file whose pieces are verified when they are read.
pub(crate) struct VerifiedFile {
    file: Arc<dyn BlockFile>,
    object: String,
    pieces: Arc<Pieces>,
    read_bytes: AtomicU64,
    /// Where to say that it is damaged: the block and its file's name.
    watched: Option<(Arc<Damages>, BlockId, String)>,
}

impl VerifiedFile {
    /// Opens the file that `meta` describes; `object` names it in errors.
    pub(crate) fn open(
        meta: &FileMeta,
        object: String,
        open: impl FnOnce(&Arc<Pieces>) -> Result<Arc<dyn BlockFile>, Error>,
    ) -> Result<Self, Error> {
        let pieces = Pieces::of(meta)
            .ok_or_else(|| Error::corrupt(&object, "the meta's piece checksums do not fit the file"))?;
        let pieces = Arc::new(pieces);
        Ok(Self { file: open(&pieces)?, object, pieces, read_bytes: AtomicU64::new(0), watched: None })
    }

    /// Has damage be known as that of a block.
    pub(crate) fn watched(self, block: BlockId, damages: &Arc<Damages>) -> Self {
        let name = self.object.rsplit(' ').next().unwrap_or_default().to_owned();
        Self { watched: Some((Arc::clone(damages), block, name)), ..self }
    }

    fn learn<T>(&self, bytes: Vec<Range<u64>>, read: Result<T, Error>) -> Result<T, Error> {
        if let Some((damages, block, name)) = &self.watched {
            damages.learn(*block, || Place::Bytes(name.clone(), bytes), &read);
        }
        read
    }

    /// Reads `length` bytes at `start`, verifying the pieces that they lie in.
    pub(crate) fn read_at(&self, start: u64, length: usize) -> Result<Bytes, Error> {
        let range = start..start.saturating_add(length as u64);
        self.read(&[range]).map(|mut read| read.pop().expect("one range, one answer"))
    }

    /// Reads ranges together, verifying the pieces that they lie in.
    pub(crate) fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        if let Some(Range { start, end }) = ranges.iter().find(|range| range.end > self.pieces.size_bytes) {
            let (length, size_bytes) = (end - start, self.pieces.size_bytes);
            let reason = format!("bytes {start}+{length} lie outside the file of {size_bytes}");
            return Err(Error::corrupt(&self.object, reason));
        }
        // Whole pieces, each once: verified and cut down in memory.
        let is_wanted = |range: &&Range<u64>| !range.is_empty();
        let whole =
            joined(ranges.iter().filter(is_wanted).map(|range| self.pieces.bytes(&self.pieces.covering(range))));
        let read = self.read_raw(&whole)?;
        for (run, bytes) in whole.iter().zip(&read) {
            for (piece, bytes) in self.pieces.covering(run).zip(bytes.chunks(PIECE_BYTES)) {
                if let Err(reason) = self.pieces.verify(piece, bytes) {
                    let damaged = self.pieces.bytes(&(piece..piece + 1));
                    return self.learn(vec![damaged], Err(Error::corrupt(&self.object, reason)));
                }
            }
        }
        let slice = |range: &Range<u64>| {
            if range.is_empty() {
                return Bytes::new();
            }
            let place = whole.partition_point(|whole| whole.end < range.end);
            let from = (range.start - whole[place].start) as usize;
            read[place].slice(from..from + (range.end - range.start) as usize)
        };
        let sliced = ranges.iter().map(slice).collect();
        self.learn(whole, Ok(sliced))
    }

    /// Brings a part of the file nearer, if it is far away. That it fails shows again when it is read.
    pub(crate) fn read_ahead(&self, range: Range<u64>) {
        let _ = self.file.read_ahead(range);
    }

    /// Brings the whole file nearer.
    pub(crate) fn read_whole_ahead(&self) {
        self.read_ahead(0..self.pieces.size_bytes);
    }

    /// Brings a part of it nearer, when there is time for it.
    pub(crate) fn read_behind(&self, range: Range<u64>) -> Option<Awaited> {
        self.file.read_behind(range)
    }

    /// Reads the whole file.
    pub(crate) fn read_all(&self) -> Result<Bytes, Error> {
        self.read_at(0, self.pieces.size_bytes as usize)
    }

    fn read_raw(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let read = match self.file.read(ranges) {
            Ok(read) => read,
            failed => return self.learn(ranges.to_vec(), failed),
        };
        let short = ranges.iter().enumerate().find_map(|(index, range)| {
            let (want, got) = (range.end - range.start, read.get(index).map_or(0, |bytes| bytes.len() as u64));
            (want != got).then(|| format!("short read (want {want} bytes, got {got})"))
        });
        let read_bytes: usize = read.iter().map(Bytes::len).sum();
        self.read_bytes.fetch_add(read_bytes as u64, Ordering::Relaxed);
        match short {
            Some(reason) => self.learn(ranges.to_vec(), Err(Error::corrupt(&self.object, reason))),
            None => Ok(read),
        }
    }
}

impl VerifiedFile {
    /// The size of the file.
    pub(crate) fn size_bytes(&self) -> u64 {
        Length::len(self)
    }

    /// What was read of it since it was opened; what was read twice counts twice.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Reads a range, verifying the pieces that it lies in.
    pub(crate) fn read_range(&self, range: Range<u64>) -> Result<Bytes, Error> {
        self.read_at(range.start, range.end.saturating_sub(range.start) as usize)
    }

    /// A file with this content, for tests.
    #[cfg(test)]
    pub(crate) fn in_memory(content: Bytes) -> Self {
        let piece_checksums = content.chunks(PIECE_BYTES).map(|piece| format!("{:016x}", xxh3_64(piece))).collect();
        let meta = FileMeta { name: "f".to_owned(), size_bytes: content.len() as u64, piece_checksums };
        Self::open(&meta, "a file in memory".to_owned(), |_| Ok(Arc::new(tests::InMemory(content)))).unwrap()
    }
}

/// The union of ranges as ranges that do not touch, ascending.
fn joined(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted: Vec<_> = ranges.collect();
    sorted.sort_unstable_by_key(|range| range.start);
    sorted.dedup_by(|next, last| {
        let touches = next.start <= last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
    sorted
}

fn parse_checksums(text: &str) -> Option<Vec<u64>> {
    if !text.len().is_multiple_of(16) || !text.is_ascii() {
        return None;
    }
    (0..text.len() / 16).map(|index| u64::from_str_radix(&text[16 * index..16 * index + 16], 16).ok()).collect()
}

impl Length for VerifiedFile {
    fn len(&self) -> u64 {
        self.pieces.size_bytes
    }
}

impl ChunkReader for VerifiedFile {
    type T = Box<dyn Read + Send>;

    /// Used for page headers when there is no offset index: serves the rest of the column.
    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let length = self.pieces.size_bytes.saturating_sub(start).min(4 * PIECE_BYTES as u64) as usize;
        Ok(Box::new(io::Cursor::new(self.get_bytes(start, length)?)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.read_at(start, length).map_err(|err| ParquetError::External(Box::new(err)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) struct InMemory(pub(super) Bytes);

    impl BlockFile for InMemory {
        fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
            let end = |at: u64| (at as usize).min(self.0.len());
            Ok(ranges.iter().map(|range| self.0.slice(end(range.start)..end(range.end))).collect())
        }
    }

    struct Mutable(parking_lot::Mutex<Vec<u8>>);

    impl BlockFile for Mutable {
        fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
            InMemory(Bytes::from(self.0.lock().clone())).read(ranges)
        }
    }

    fn written(content: &[u8]) -> FileMeta {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = PieceWriter::create(dir.path().join("f")).unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    }

    fn opened(bytes: Vec<u8>, meta: &FileMeta) -> VerifiedFile {
        let file = Arc::new(InMemory(bytes.into()));
        VerifiedFile::open(meta, "block X f".to_owned(), |_| Ok(file)).unwrap()
    }

    #[test]
    fn a_flipped_bit_is_found_in_its_piece_and_nowhere_else() {
        let mut bytes = vec![7; 3 * PIECE_BYTES + 5];
        let meta = written(&bytes);
        bytes[PIECE_BYTES + 9] ^= 1;
        let file = opened(bytes, &meta);
        assert!(file.read_at(0, PIECE_BYTES).is_ok());
        assert_eq!(file.read_at(2 * PIECE_BYTES as u64 + 3, PIECE_BYTES + 2).unwrap().len(), PIECE_BYTES + 2);
        let err = file.read_at(PIECE_BYTES as u64 - 1, 2).unwrap_err();
        assert!(err.to_string().starts_with("block X f: bytes 65536+65536: checksum mismatch"), "{err}");
    }

    #[test]
    fn a_bit_that_flips_after_it_was_read_is_found_when_it_is_read_again() {
        let bytes = vec![7; 2 * PIECE_BYTES];
        let meta = written(&bytes);
        let content = Arc::new(Mutable(bytes.into()));
        let file = VerifiedFile::open(&meta, "block X f".to_owned(), |_| Ok(Arc::clone(&content) as _)).unwrap();
        assert!(file.read_at(5, 10).is_ok());
        content.0.lock()[PIECE_BYTES - 1] ^= 1;
        assert!(matches!(file.read_at(5, 10), Err(Error::Corrupt { .. })));
        assert!(file.read_at(PIECE_BYTES as u64, 10).is_ok());
        content.0.lock()[PIECE_BYTES - 1] ^= 1;
        assert!(file.read_at(5, 10).is_ok());
    }

    #[test]
    fn ranges_read_together_are_those_read_alone() {
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 5).map(|at| (at / 7) as u8).collect();
        let meta = written(&bytes);
        let piece = PIECE_BYTES as u64;
        let ranges = [2 * piece + 1..3 * piece + 5, 0..1, 5..5, piece - 3..piece + 3, 10..20, piece..2 * piece];
        let file = opened(bytes.clone(), &meta);
        let read = file.read(&ranges).unwrap();
        for (range, read) in ranges.iter().zip(read) {
            assert!(read == bytes[range.start as usize..range.end as usize], "{range:?}");
        }
        assert!(file.read(&[0..1, 3 * piece..3 * piece + 6]).is_err());
    }

    #[test]
    fn a_file_that_ends_early_is_reported_wherever_it_lies() {
        let meta = written(b"hello");
        let err = opened(b"hell".to_vec(), &meta).read_all().unwrap_err();
        assert!(matches!(err, Error::Corrupt { .. }), "{err}");
    }
}
