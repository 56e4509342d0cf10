//! Code generated from `proto/`.

#![allow(missing_docs, clippy::all, rustdoc::all, reason = "generated")]

/// Package `sms`.
pub mod sms {
    tonic::include_proto!("sms");
}

/// Package `spearlet`.
pub mod spearlet {
    tonic::include_proto!("spearlet");
}

/// Package `spear`.
pub mod spear {
    /// Package `spear.v1`.
    pub mod v1 {
        tonic::include_proto!("spear.v1");
    }
}

pub use spear::v1;

/// All of it as a `FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
