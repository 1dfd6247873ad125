//! Compressed bodies: opened with a cap, and made for the log.
//!
//! A body of a few kilobytes can stand for gigabytes. Output is produced piece by piece, each
//! accounted for in the request's [`Admission`] before it is allocated, and never past
//! `max_message_bytes`.

use std::cell::RefCell;
use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use zstd::bulk::Compressor;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use crate::{Admission, PushError};

/// The least by which an output grows.
const GROWTH_BYTES_MIN: usize = 64 << 10;

/// The largest zstd window that is accepted, 2^25 = 32 MiB: what the Collector's strongest level
/// asks for. It is only touched as far as output is produced.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;

/// The fastest level that still finds repeated resources and keys: 380 B/span become about 60, at
/// about 0.3 us/span.
const LOG_ZSTD_LEVEL: i32 = 1;

/// Output that knows how much it may hold.
struct Capped<'a> {
    bytes: Vec<u8>,
    admission: &'a mut Admission,
}

impl Capped<'_> {
    /// Makes room for at least one more byte; for `expected_bytes` at first.
    fn grow(&mut self, expected_bytes: usize) -> Result<(), PushError> {
        let cap_bytes = self.admission.limits().max_message_bytes;
        let held_bytes = self.bytes.capacity();
        if held_bytes >= cap_bytes {
            return Err(PushError::message_too_large("decompressed message", self.admission.limits()));
        }
        let wanted_bytes = match held_bytes {
            0 => expected_bytes.max(GROWTH_BYTES_MIN),
            _ => held_bytes.saturating_mul(2),
        };
        let more_bytes = wanted_bytes.min(cap_bytes) - held_bytes;
        self.admission.grow(more_bytes)?;
        self.bytes.reserve_exact(held_bytes + more_bytes - self.bytes.len());
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.bytes.len() == self.bytes.capacity()
    }

    fn into_bytes(mut self) -> Bytes {
        self.bytes.shrink_to_fit();
        Bytes::from(self.bytes)
    }
}

fn not(name: &str, err: &io::Error) -> PushError {
    PushError::Invalid(format!("body is not {name}: {err}"))
}

/// Opens a gzip body of one or more members.
pub(crate) fn gunzip(body: &[u8], admission: &mut Admission) -> Result<Bytes, PushError> {
    // The last four bytes are the length of the last member, if they can be trusted.
    let expected_bytes = body.last_chunk::<4>().map_or(0, |tail| u32::from_le_bytes(*tail) as usize);
    let mut decoder = MultiGzDecoder::new(body);
    let mut out = Capped { bytes: Vec::new(), admission };
    let mut is_at_end = false;
    while !is_at_end {
        let filled = out.bytes.len();
        if out.is_full() {
            // The end shows only to a reader that asks for more.
            let mut one_more = [0];
            match decoder.read(&mut one_more).map_err(|err| not("gzip", &err))? {
                0 => break,
                _ => out.grow(expected_bytes)?,
            }
            out.bytes.push(one_more[0]);
            continue;
        }
        out.bytes.resize(out.bytes.capacity(), 0);
        let read = decoder.read(&mut out.bytes[filled..]);
        let read_bytes = *read.as_ref().unwrap_or(&0);
        out.bytes.truncate(filled + read_bytes);
        is_at_end = read.map_err(|err| not("gzip", &err))? == 0;
    }
    Ok(out.into_bytes())
}

/// Opens a zstd body of one or more frames.
pub(crate) fn unzstd(body: &[u8], admission: &mut Admission) -> Result<Bytes, PushError> {
    let bad = |err: io::Error| not("zstd", &err);
    let expected_bytes = match zstd::zstd_safe::get_frame_content_size(body) {
        Ok(Some(bytes)) => usize::try_from(bytes).unwrap_or(usize::MAX),
        _ => 0,
    };
    let mut decoder = Decoder::new().map_err(bad)?;
    decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(bad)?;
    let mut input = InBuffer::around(body);
    let mut out = Capped { bytes: Vec::new(), admission };
    out.grow(expected_bytes)?;
    loop {
        let filled = out.bytes.len();
        let missing_bytes = {
            let mut output = OutBuffer::around_pos(&mut out.bytes, filled);
            decoder.run(&mut input, &mut output).map_err(bad)?
        };
        let is_frame_done = missing_bytes == 0;
        if is_frame_done && input.pos() == body.len() {
            return Ok(out.into_bytes());
        }
        if is_frame_done {
            decoder.reinit().map_err(bad)?;
        } else if out.is_full() {
            out.grow(expected_bytes)?;
        } else if input.pos() == body.len() {
            return Err(bad(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Compresses a payload for the log.
pub(crate) fn zstd_for_log(payload: &[u8], admission: &mut Admission) -> Result<Bytes, PushError> {
    thread_local! {
        /// A compressor's tables are about a megabyte: kept per thread of the pool.
        static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    }
    let failed = |err: io::Error| PushError::Internal(format!("zstd: {err}"));
    admission.grow(zstd::zstd_safe::compress_bound(payload.len()))?;
    let mut stored = COMPRESSOR
        .with_borrow_mut(|kept| {
            let compressor = match kept {
                Some(compressor) => compressor,
                None => kept.insert(Compressor::new(LOG_ZSTD_LEVEL)?),
            };
            compressor.compress(payload)
        })
        .map_err(failed)?;
    stored.shrink_to_fit();
    Ok(Bytes::from(stored))
}
