//! One log record: an accepted request, as `FORMAT.md` lays it out.
//!
//! ```text
//!   key    tenant length u8 | tenant | sequence u64 BE        sorts by tenant, then by sequence
//!   value  version u8 | encoding u8 | received_at u64 | payload bytes u32
//!          accepted u32 | rejected u32 | { span index u32, reason u8 } ... | stored bytes
//!          xxh3-64 of the key and of everything above
//! ```
//!
//! The request's bytes are kept as they came (or compressed by the distributor): the log's cost is
//! per byte. What the check found is kept beside them, so that a restart accepts exactly what was
//! accepted, whatever a later version thinks of it, and does not look at every byte twice.

use std::io::Read;

use bytes::Bytes;
use spoor_model::ingest::{AppendRequest, BodyEncoding, Checked, RejectReason, Rejected};
use spoor_model::{TenantId, UnixNano};
use xxhash_rust::xxh3::Xxh3;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 22;
const REJECTED_BYTES: usize = 5;
const CHECKSUM_BYTES: usize = 8;

/// The place of a record in the log. Ascending over all tenants, with gaps; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Sequence(pub(crate) u64);

impl Sequence {
    /// The place after this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("2^64 requests are out of reach"))
    }
}

/// The key of a record.
pub(crate) fn key(tenant: &TenantId, sequence: Sequence) -> Vec<u8> {
    let name = tenant.as_str().as_bytes();
    let mut key = Vec::with_capacity(1 + name.len() + 8);
    key.push(u8::try_from(name.len()).expect("tenant names have at most 150 bytes"));
    key.extend_from_slice(name);
    key.extend_from_slice(&sequence.0.to_be_bytes());
    key
}

/// Takes a key apart; `None` when it is none.
pub(crate) fn parse_key(key: &[u8]) -> Option<(TenantId, Sequence)> {
    let (length, rest) = key.split_first()?;
    let (name, sequence) = rest.split_at_checked(usize::from(*length))?;
    let tenant = TenantId::parse(std::str::from_utf8(name).ok()?).ok()?;
    Some((tenant, Sequence(u64::from_be_bytes(sequence.try_into().ok()?))))
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("key of {0} bytes is not a record's")]
    Key(usize),
    #[error("value of {0} bytes is too short")]
    Short(usize),
    #[error("checksum mismatch (want {want:016x}, got {got:016x})")]
    Checksum { want: u64, got: u64 },
    #[error("record version {0} is not known; a newer Spoor wrote it")]
    Version(u8),
    #[error("{what} {value} is not known")]
    Unknown { what: &'static str, value: u8 },
    #[error("{encoding} body does not decompress to {want} bytes: {reason}")]
    Body { encoding: &'static str, want: u32, reason: String },
    #[error("decoding panicked")]
    Poison,
}

/// A record read back.
#[derive(Debug, Clone)]
pub(crate) struct Record<'a> {
    pub(crate) received_at: UnixNano,
    pub(crate) checked: Checked,
    encoding: BodyEncoding,
    payload_bytes: u32,
    stored: &'a [u8],
}

fn checksum(key: &[u8], body: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(key);
    hash.update(body);
    hash.digest()
}

fn encoding_code(encoding: BodyEncoding) -> u8 {
    match encoding {
        BodyEncoding::Identity => 0,
        BodyEncoding::Gzip => 1,
        BodyEncoding::Zstd => 2,
    }
}

fn reason_code(reason: RejectReason) -> u8 {
    let place = RejectReason::ALL.iter().position(|other| *other == reason).expect("ALL has every reason");
    u8::try_from(place).expect("there are few reasons")
}

/// The value of a record.
pub(crate) fn encode(key: &[u8], request: &AppendRequest, received_at: UnixNano) -> Vec<u8> {
    let AppendRequest { payload, stored_encoding, stored, checked, .. } = request;
    let count = |n: usize| u32::try_from(n).expect("requests are far below 4 GiB");
    let size = HEADER_BYTES + REJECTED_BYTES * checked.rejected.len() + stored.len() + CHECKSUM_BYTES;
    let mut value = Vec::with_capacity(size);
    value.extend_from_slice(&[VERSION, encoding_code(*stored_encoding)]);
    value.extend_from_slice(&received_at.0.to_le_bytes());
    value.extend_from_slice(&count(payload.len()).to_le_bytes());
    value.extend_from_slice(&checked.accepted_count.to_le_bytes());
    value.extend_from_slice(&count(checked.rejected.len()).to_le_bytes());
    for rejected in &checked.rejected {
        value.extend_from_slice(&rejected.span_index.to_le_bytes());
        value.push(reason_code(rejected.reason));
    }
    value.extend_from_slice(stored);
    value.extend_from_slice(&checksum(key, &value).to_le_bytes());
    assert_eq!(value.len(), size, "the record has the size that was computed");
    value
}

/// Reads a record; `key` is the one it was found under.
pub(crate) fn decode<'a>(key: &[u8], value: &'a [u8]) -> Result<Record<'a>, RecordError> {
    let short = || RecordError::Short(value.len());
    let (body, sum) = value.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(short)?;
    let (want, got) = (u64::from_le_bytes(*sum), checksum(key, body));
    if want != got {
        return Err(RecordError::Checksum { want, got });
    }
    let (header, rest) = body.split_first_chunk::<HEADER_BYTES>().ok_or_else(short)?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if header[0] != VERSION {
        return Err(RecordError::Version(header[0]));
    }
    let encoding = match header[1] {
        0 => BodyEncoding::Identity,
        1 => BodyEncoding::Gzip,
        2 => BodyEncoding::Zstd,
        value => return Err(RecordError::Unknown { what: "encoding", value }),
    };
    let (rejected, stored) = rest.split_at_checked(word(18) as usize * REJECTED_BYTES).ok_or_else(short)?;
    Ok(Record {
        received_at: UnixNano(u64::from_le_bytes(header[2..10].try_into().expect("eight bytes"))),
        checked: Checked { accepted_count: word(14), rejected: decode_rejected(rejected)? },
        encoding,
        payload_bytes: word(10),
        stored,
    })
}

fn decode_rejected(bytes: &[u8]) -> Result<Vec<Rejected>, RecordError> {
    let one = |entry: &[u8]| {
        let (index, code) = entry.split_first_chunk::<4>().expect("chunks have five bytes");
        let reason = RejectReason::ALL.get(usize::from(code[0])).copied();
        let reason = reason.ok_or(RecordError::Unknown { what: "reject reason", value: code[0] })?;
        Ok(Rejected { span_index: u32::from_le_bytes(*index), reason })
    };
    bytes.chunks_exact(REJECTED_BYTES).map(one).collect()
}

impl Record<'_> {
    /// The request, not compressed. Never allocates more than the record says it needs.
    pub(crate) fn payload(&self) -> Result<Bytes, RecordError> {
        let want = self.payload_bytes as usize;
        let fail =
            |reason: String| RecordError::Body { encoding: self.encoding.name(), want: self.payload_bytes, reason };
        let payload = match self.encoding {
            BodyEncoding::Identity => self.stored.to_vec(),
            BodyEncoding::Zstd => zstd::bulk::decompress(self.stored, want).map_err(|err| fail(err.to_string()))?,
            BodyEncoding::Gzip => {
                let mut payload = Vec::with_capacity(want);
                let limit = u64::from(self.payload_bytes) + 1;
                let mut reader = flate2::bufread::MultiGzDecoder::new(self.stored).take(limit);
                reader.read_to_end(&mut payload).map_err(|err| fail(err.to_string()))?;
                payload
            }
        };
        match payload.len() == want {
            true => Ok(Bytes::from(payload)),
            false => Err(fail(format!("got {}", payload.len()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    fn request(encoding: BodyEncoding, payload: &[u8]) -> AppendRequest {
        let stored = match encoding {
            BodyEncoding::Identity => payload.to_vec(),
            BodyEncoding::Zstd => zstd::bulk::compress(payload, 1).unwrap(),
            BodyEncoding::Gzip => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                writer.write_all(payload).unwrap();
                writer.finish().unwrap()
            }
        };
        let rejected = vec![Rejected { span_index: 7, reason: RejectReason::Malformed }];
        AppendRequest {
            tenant: tenant("a"),
            payload: Bytes::copy_from_slice(payload),
            stored_encoding: encoding,
            stored: Bytes::from(stored),
            checked: Checked { accepted_count: 3, rejected },
        }
    }

    const ENCODINGS: [BodyEncoding; 3] = [BodyEncoding::Identity, BodyEncoding::Gzip, BodyEncoding::Zstd];

    #[test]
    fn records_come_back_as_they_were_in_every_encoding() {
        for encoding in ENCODINGS {
            let request = request(encoding, &b"spans ".repeat(1000));
            let key = key(&request.tenant, Sequence(9));
            let value = encode(&key, &request, UnixNano(12));
            let record = decode(&key, &value).unwrap();
            assert_eq!(record.checked, request.checked);
            assert_eq!(record.received_at, UnixNano(12));
            assert_eq!(record.payload().unwrap(), request.payload);
        }
    }

    #[test]
    fn any_flipped_bit_and_any_other_key_fails_the_checksum() {
        let request = request(BodyEncoding::Identity, b"spans");
        let key_here = key(&request.tenant, Sequence(9));
        let value = encode(&key_here, &request, UnixNano(12));
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&key_here, &bad), Err(RecordError::Checksum { .. })), "bit {bit}");
        }
        let elsewhere = key(&request.tenant, Sequence(10));
        assert!(matches!(decode(&elsewhere, &value), Err(RecordError::Checksum { .. })));
    }

    #[test]
    fn a_body_that_is_longer_than_its_header_says_is_refused() {
        for encoding in ENCODINGS {
            let mut request = request(encoding, b"spans and spans");
            request.payload = request.payload.slice(..5);
            let key = key(&request.tenant, Sequence(1));
            let value = encode(&key, &request, UnixNano(0));
            assert!(matches!(decode(&key, &value).unwrap().payload(), Err(RecordError::Body { .. })));
        }
    }

    #[test]
    fn reason_codes_never_change() {
        let codes: Vec<(u8, &str)> = RejectReason::ALL.iter().map(|r| (reason_code(*r), r.label())).collect();
        assert_eq!(codes[0], (0, "invalid_trace_id"));
        assert_eq!(codes[3], (3, "end_before_start"));
        assert_eq!(codes[6], (6, "malformed_resource_or_scope"));
    }

    #[test]
    fn keys_sort_by_tenant_and_then_by_sequence_and_are_prefixes_of_no_other_tenant() {
        let mut keys = [
            key(&tenant("b"), Sequence(1)),
            key(&tenant("ab"), Sequence(1)),
            key(&tenant("a"), Sequence(256)),
            key(&tenant("a"), Sequence(255)),
        ];
        keys.sort();
        let order: Vec<_> = keys.iter().map(|key| parse_key(key).unwrap()).collect();
        assert_eq!(order[0], (tenant("a"), Sequence(255)));
        assert_eq!(order[1], (tenant("a"), Sequence(256)));
        assert_eq!(order[2].0, tenant("b"));
        assert_eq!(order[3].0, tenant("ab"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(key in prop::collection::vec(any::<u8>(), 0..20),
                                       value in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_key(&key);
            let mut value = value;
            let sum = checksum(&key, &value);
            value.extend_from_slice(&sum.to_le_bytes());
            if let Ok(record) = decode(&key, &value)
                && record.payload_bytes < 1 << 20
            {
                let _ = record.payload();
            }
        }
    }
}
