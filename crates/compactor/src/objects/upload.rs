//! Putting a built block's files into the store: in parts, so that memory is bounded whatever their size.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutMode, PutPayload};
use spoor_block::Error;

use super::requests::{Failure, Requests};

/// Size of a part; smaller files go in one request. S3 wants 5 MiB at least and 10,000 parts at most.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way at once: with the one being read, 40 MiB of memory.
const PARTS_IN_FLIGHT: usize = 4;
/// How often a file is tried in whole; single requests are repeated besides.
const ATTEMPTS: usize = 3;

/// Puts a file's content at `path`, durably.
pub(crate) fn upload(requests: &Requests, from: &FilePath, path: &Path) -> Result<(), Error> {
    let mut attempt = 1;
    loop {
        let failure = match upload_once(requests, from, path)? {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if attempt == ATTEMPTS || requests.is_stopping() {
            return Err(failure.doing("upload", path.to_string()));
        }
        tracing::warn!(object = %path, err = %failure, attempt, "an upload failed and is begun again");
        attempt += 1;
    }
}

/// The outer error is of the local file.
fn upload_once(requests: &Requests, from: &FilePath, path: &Path) -> Result<Result<(), Failure>, Error> {
    let local = |err: io::Error| Error::Io {
        action: "read",
        path: from.display().to_string(),
        reason: err.to_string(),
        is_full: false,
    };
    let mut file = File::open(from).map_err(local)?;
    let first = read_part(&mut file).map_err(local)?;
    if first.len() < PART_BYTES {
        return Ok(requests.put(path, first, PutMode::Overwrite).map(drop));
    }
    let (store, target) = (Arc::clone(requests.store()), path.clone());
    let begun = requests.start(async move { store.put_multipart(&target).await });
    let mut upload = match wait_for(&begun) {
        Ok(upload) => upload,
        Err(failure) => return Ok(Err(failure)),
    };
    let sent = send_parts(requests, &mut *upload, first, &mut file);
    let outcome = match sent {
        Ok(Ok(())) => wait_for(&requests.start(async move { upload.complete().await })).map(drop),
        Ok(Err(failure)) => {
            // What stays is invisible; a rule of the bucket clears it.
            let _ = wait_for(&requests.start(async move { upload.abort().await }));
            Err(failure)
        }
        Err(err) => {
            let _ = wait_for(&requests.start(async move { upload.abort().await }));
            return Err(local(err));
        }
    };
    Ok(outcome)
}

fn send_parts(
    requests: &Requests,
    upload: &mut dyn MultipartUpload,
    first: Bytes,
    file: &mut File,
) -> io::Result<Result<(), Failure>> {
    let mut under_way: VecDeque<Receiver<Result<(), Failure>>> = VecDeque::new();
    let mut part = first;
    while !part.is_empty() || !under_way.is_empty() {
        if part.is_empty() || under_way.len() == PARTS_IN_FLIGHT {
            let oldest = under_way.pop_front().expect("one is under way");
            if let Err(failure) = wait_for(&oldest) {
                return Ok(Err(failure));
            }
            continue;
        }
        requests.metrics().written_bytes.inc_by(part.len() as u64);
        under_way.push_back(requests.start(upload.put_part(PutPayload::from(part))));
        part = read_part(file)?;
    }
    Ok(Ok(()))
}

fn wait_for<T>(outcome: &Receiver<Result<T, Failure>>) -> Result<T, Failure> {
    outcome.recv().unwrap_or_else(|_| Err(Failure::Unavailable("a request ended without an answer".to_owned())))
}

/// The next bytes of a file: fewer than a part at its end.
fn read_part(file: &mut File) -> io::Result<Bytes> {
    let mut part = Vec::with_capacity(PART_BYTES);
    file.take(PART_BYTES as u64).read_to_end(&mut part)?;
    Ok(part.into())
}
