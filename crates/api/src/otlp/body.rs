//! Bodies, read into one buffer for which there is room.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use spoor_distributor::Distributor;
use spoor_model::TenantId;

use super::{Received, Refusal};
use crate::error::Kind;

/// The pieces of a body, as the network brings them.
pub(super) struct Pieces {
    body: Body,
    silence_max: Duration,
}

impl Pieces {
    /// No two pieces may lie further apart than `silence_max`.
    pub(super) fn new(body: Body, silence_max: Duration) -> Self {
        Self { body, silence_max }
    }

    /// The next piece, never empty; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            let frame = tokio::time::timeout(self.silence_max, self.body.frame()).await;
            let silent =
                |_| Refusal::new(Kind::Timeout, format!("nothing of the body came for {:?}", self.silence_max));
            let Some(frame) = frame.map_err(silent)? else {
                return Ok(None);
            };
            let frame = frame.map_err(|err| Refusal::new(Kind::Invalid, format!("body could not be read: {err}")))?;
            match frame.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                _ => {}
            }
        }
    }

    /// Reads and forgets what is left, up to `bytes_max`.
    ///
    /// A sender that is refused while it still sends finds its connection (HTTP/1.1) or its stream
    /// (HTTP/2; curl 7.88 does not cope) reset, and might never see the answer, which says when to
    /// come back. Nothing is kept meanwhile.
    pub(super) async fn discard(mut self, bytes_max: usize) {
        let mut discarded_bytes = 0;
        while discarded_bytes <= bytes_max {
            match self.next().await {
                Ok(Some(piece)) => discarded_bytes += piece.len(),
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// Reads a body of `declared_bytes`, or of unknown size. Room for it is made before it is read.
pub(super) async fn read_whole(
    distributor: &Distributor,
    tenant: &TenantId,
    pieces: &mut Pieces,
    declared_bytes: Option<usize>,
) -> Result<Received, Refusal> {
    let mut admission = distributor.admit(tenant, declared_bytes.unwrap_or(0))?;
    let mut whole = Vec::new();
    let mut first = None;
    while let Some(piece) = pieces.next().await? {
        if declared_bytes.is_none() {
            admission.grow_body(piece.len())?;
        }
        // Most bodies of up to some hundred kilobytes come in one piece: they are not copied.
        match first.take() {
            None if whole.is_empty() => first = Some(piece),
            None => whole.extend_from_slice(&piece),
            Some(before) => {
                whole.reserve_exact(declared_bytes.unwrap_or(before.len() + piece.len()));
                whole.extend_from_slice(&before);
                whole.extend_from_slice(&piece);
            }
        }
    }
    Ok(Received { admission, body: first.unwrap_or_else(|| Bytes::from(whole)) })
}

/// The bytes before each gRPC message: whether it is compressed, and its length.
pub(super) const GRPC_PREFIX_BYTES: usize = 5;

/// Reads the one message of a unary call; answers also whether it is marked as compressed. Room for
/// it is made as soon as its length is known.
pub(super) async fn read_grpc_message(
    distributor: &Distributor,
    tenant: &TenantId,
    pieces: &mut Pieces,
) -> Result<(bool, Received), Refusal> {
    let cut = || Refusal::new(Kind::Invalid, "the body ends inside a gRPC message");
    let more = || Refusal::new(Kind::Invalid, "a unary call has one message, this has more");
    let mut prefix = Vec::with_capacity(GRPC_PREFIX_BYTES);
    let mut piece = Bytes::new();
    while prefix.len() < GRPC_PREFIX_BYTES {
        if piece.is_empty() {
            piece = pieces.next().await?.ok_or_else(cut)?;
        }
        prefix.extend_from_slice(&piece.split_to(piece.len().min(GRPC_PREFIX_BYTES - prefix.len())));
    }
    let is_compressed = match prefix[0] {
        0 => false,
        1 => true,
        flag => {
            return Err(Refusal::new(Kind::Invalid, format!("a gRPC message has the flag {flag}, expected 0 or 1")));
        }
    };
    let length = u32::from_be_bytes(prefix[1..].try_into().expect("five bytes")) as usize;
    let admission = distributor.admit(tenant, length)?;
    let body = if piece.len() == length {
        piece
    } else {
        let mut message = Vec::with_capacity(length);
        loop {
            if piece.len() > length - message.len() {
                return Err(more());
            }
            message.extend_from_slice(&piece);
            if message.len() == length {
                break Bytes::from(message);
            }
            piece = pieces.next().await?.ok_or_else(cut)?;
        }
    };
    match pieces.next().await? {
        None => Ok((is_compressed, Received { admission, body })),
        Some(_) => Err(more()),
    }
}
