//! Messages and services of the gRPC surfaces, generated from the `.proto` files in `proto/` (`make proto`).

use bytes::{Buf, BufMut, Bytes};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType};

/// Makes a module of a generated file.
macro_rules! generated {
    ($name:ident, $file:literal) => {
        #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]
        #[allow(unused_qualifications, clippy::too_many_lines, clippy::clone_on_ref_ptr, reason = "generated")]
        #[allow(clippy::allow_attributes_without_reason, reason = "generated")]
        pub(crate) mod $name {
            include!(concat!("gen/", $file));
        }
    };
}

// Tempo's package.
generated!(tempopb, "tempopb.rs");

/// Jaeger's packages.
pub(crate) mod jaeger {
    generated!(api_v2, "jaeger.api_v2.rs");
    generated!(api_v3, "jaeger.api_v3.rs");

    /// Structured filters.
    pub(crate) mod expression {
        generated!(v1, "jaeger.expression.v1.rs");
    }

    /// The remote storage.
    pub(crate) mod storage {
        generated!(v2, "jaeger.storage.v2.rs");
    }
}

/// Every file in `proto/` and what it imports, for reflection.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");

/// A message that is encoded already. It is only ever sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct EncodedMessage(pub(crate) Bytes);

impl prost::Message for EncodedMessage {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buf, ctx)
    }

    fn clear(&mut self) {
        self.0 = Bytes::new();
    }
}

/// What of OTLP the services return.
pub(crate) mod otlp {
    /// `opentelemetry.proto.trace.v1.TracesData`.
    pub(crate) type TracesData = super::EncodedMessage;
}
