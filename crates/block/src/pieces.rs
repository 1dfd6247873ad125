//! Files in checked pieces: a checksum per 64 KiB, made while writing, verified when first read.
//!
//! Parquet has room for a checksum per page, but the Rust writer leaves it empty; whole-file
//! checksums would make the first query after a restart read everything. Pieces cost 8 bytes per
//! 64 KiB and 2 ms per 25 MB, once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::error::Error;
use crate::files::BlockFile;
use crate::meta::FileMeta;

/// How many bytes one checksum covers; the last piece of a file may be shorter.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// Passes bytes on to a file and notes the checksum of each piece.
pub(crate) struct PieceWriter {
    file: io::BufWriter<File>,
    path: PathBuf,
    hasher: Xxh3,
    in_piece_bytes: usize,
    size_bytes: u64,
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
            piece_checksums: String::new(),
        })
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
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file whose pieces are verified the first time they are read.
pub(crate) struct VerifiedFile {
    file: Arc<dyn BlockFile>,
    object: String,
    size_bytes: u64,
    checksums: Vec<u64>,
    is_verified: Vec<AtomicBool>,
}

impl VerifiedFile {
    /// Wraps the file that `meta` describes; `object` names it in errors.
    pub(crate) fn new(file: Arc<dyn BlockFile>, meta: &FileMeta, object: String) -> Result<Self, Error> {
        let checksums = parse_checksums(&meta.piece_checksums)
            .filter(|checksums| checksums.len() as u64 == meta.size_bytes.div_ceil(PIECE_BYTES as u64))
            .ok_or_else(|| Error::corrupt(&object, "the meta's piece checksums do not fit the file"))?;
        let is_verified = checksums.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Self { file, object, size_bytes: meta.size_bytes, checksums, is_verified })
    }

    /// Reads `length` bytes at `start`, verifying the pieces that they lie in.
    pub(crate) fn read_at(&self, start: u64, length: usize) -> Result<Bytes, Error> {
        let end = start.checked_add(length as u64).filter(|end| *end <= self.size_bytes);
        let Some(end) = end else {
            let reason = format!("bytes {start}+{length} lie outside the file of {}", self.size_bytes);
            return Err(Error::corrupt(&self.object, reason));
        };
        let pieces = (start / PIECE_BYTES as u64) as usize..end.div_ceil(PIECE_BYTES as u64) as usize;
        if pieces.clone().all(|piece| self.is_verified[piece].load(Ordering::Relaxed)) {
            return self.read_raw(start..end);
        }
        // Whole pieces, read once: verified and cut down in memory.
        let first = (pieces.start * PIECE_BYTES) as u64;
        let whole = self.read_raw(first..(pieces.end as u64 * PIECE_BYTES as u64).min(self.size_bytes))?;
        for (piece, bytes) in pieces.zip(whole.chunks(PIECE_BYTES)) {
            if !self.is_verified[piece].load(Ordering::Relaxed) {
                self.verify(piece, bytes)?;
                self.is_verified[piece].store(true, Ordering::Relaxed);
            }
        }
        let from = (start - first) as usize;
        Ok(whole.slice(from..from + length))
    }

    /// Reads the whole file.
    pub(crate) fn read_all(&self) -> Result<Bytes, Error> {
        self.read_at(0, self.size_bytes as usize)
    }

    fn read_raw(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let want = range.end - range.start;
        let bytes = self.file.read(&[range])?.pop().unwrap_or_default();
        if bytes.len() as u64 != want {
            let reason = format!("short read (want {want} bytes, got {})", bytes.len());
            return Err(Error::corrupt(&self.object, reason));
        }
        Ok(bytes)
    }

    fn verify(&self, piece: usize, bytes: &[u8]) -> Result<(), Error> {
        let (want, got) = (self.checksums[piece], xxh3_64(bytes));
        if want != got {
            let (start, length) = (piece * PIECE_BYTES, bytes.len());
            let reason = format!("bytes {start}+{length}: checksum mismatch (want {want:016x}, got {got:016x})");
            return Err(Error::corrupt(&self.object, reason));
        }
        Ok(())
    }
}

impl VerifiedFile {
    /// The size of the file.
    pub(crate) fn size_bytes(&self) -> u64 {
        Length::len(self)
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
        Self::new(Arc::new(tests::InMemory(content)), &meta, "a file in memory".to_owned()).unwrap()
    }
}

fn parse_checksums(text: &str) -> Option<Vec<u64>> {
    if !text.len().is_multiple_of(16) || !text.is_ascii() {
        return None;
    }
    (0..text.len() / 16).map(|index| u64::from_str_radix(&text[16 * index..16 * index + 16], 16).ok()).collect()
}

impl Length for VerifiedFile {
    fn len(&self) -> u64 {
        self.size_bytes
    }
}

impl ChunkReader for VerifiedFile {
    type T = Box<dyn Read + Send>;

    /// Used for page headers when there is no offset index: serves the rest of the column.
    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let length = (self.size_bytes.saturating_sub(start)).min(4 * PIECE_BYTES as u64) as usize;
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

    fn written(content: &[u8]) -> FileMeta {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = PieceWriter::create(dir.path().join("f")).unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    }

    fn opened(bytes: Vec<u8>, meta: &FileMeta) -> VerifiedFile {
        VerifiedFile::new(Arc::new(InMemory(bytes.into())), meta, "block X f".to_owned()).unwrap()
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
    fn a_file_that_ends_early_is_reported_wherever_it_lies() {
        let meta = written(b"hello");
        let err = opened(b"hell".to_vec(), &meta).read_all().unwrap_err();
        assert!(matches!(err, Error::Corrupt { .. }), "{err}");
    }
}
