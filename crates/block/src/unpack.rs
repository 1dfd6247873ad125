//! One zstd context per thread: making one costs more than unpacking a page.

use std::cell::RefCell;
use std::io;

use bytes::Bytes;

thread_local! {
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Unpacks a zstd frame that says its length, which is at most `bytes_max`.
pub(crate) fn unpack(packed: &[u8], bytes_max: usize) -> io::Result<Bytes> {
    if packed.is_empty() {
        return Ok(Bytes::new());
    }
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not a zstd frame of a known and sane length");
    let length = zstd::bulk::Decompressor::upper_bound(packed).filter(|length| *length <= bytes_max);
    let length = length.ok_or_else(malformed)?;
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(zstd::bulk::Decompressor::new()?),
        };
        let mut unpacked = Vec::with_capacity(length);
        decompressor.decompress_to_buffer(packed, &mut unpacked)?;
        Ok(Bytes::from(unpacked))
    })
}
