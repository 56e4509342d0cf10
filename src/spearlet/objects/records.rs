//! What is kept of an object beside its bytes.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use types::{Keyed, Timestamp};
use uuid::Uuid;

use crate::artifacts::hex;

/// The record of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// Its name; any text.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// sha256 of the bytes, hexadecimal.
    pub sha256: String,
    /// Name of the file with the bytes; every write makes a new one.
    pub blob: Uuid,
    /// When the key was first written.
    pub created_at: Timestamp,
    /// When anything of it was changed last.
    pub updated_at: Timestamp,
    /// How many use it; removing the last reference removes an object that is not pinned.
    pub ref_count: i32,
    /// Kept without references.
    #[serde(default)]
    pub pinned: bool,
    /// Free labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

impl Keyed for ObjectRecord {
    const PREFIX: &'static str = "object/";

    /// A key of the store is short and plain; that of an object need be neither.
    fn id(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.key.as_bytes());
        hex(hash)
    }
}

impl ObjectRecord {
    /// Bytes it takes in memory, about.
    pub(super) fn weight(&self) -> u64 {
        weight(&self.key, &self.metadata)
    }
}

/// Bytes that a record with this key and metadata takes in memory, about.
pub(super) fn weight(key: &str, metadata: &BTreeMap<String, String>) -> u64 {
    let labels: usize = metadata.iter().map(|(name, value)| name.len() + value.len() + 96).sum();
    (2 * key.len() + labels + 320) as u64
}
