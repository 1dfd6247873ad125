//! The clients that tests use: small, blocking, and none of Spoor's own code.

pub mod grpc;
pub mod http;

/// How a request body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Identity,
    /// gzip, level 6, as SDKs have it.
    Gzip,
    /// zstd, level 3, as the Collector has it.
    Zstd,
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Identity, Self::Gzip, Self::Zstd];

    /// The name in `content-encoding` and `grpc-encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Compresses a body.
    pub fn compress(self, body: &[u8]) -> Vec<u8> {
        match self {
            Self::Identity => body.to_vec(),
            Self::Gzip => {
                use std::io::Write;
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
                encoder.write_all(body).expect("a vector takes everything");
                encoder.finish().expect("a vector takes everything")
            }
            Self::Zstd => zstd::bulk::compress(body, 3).expect("zstd compresses everything"),
        }
    }
}
