//! Files uploaded to the registry.

use serde::{Deserialize, Serialize};

use crate::{FileId, Timestamp};

/// What is known of an uploaded file; its bytes lie beside the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its id.
    pub id: FileId,
    /// The name it was uploaded under.
    pub name: String,
    /// The media type it was uploaded with.
    pub content_type: String,
    /// Bytes.
    pub len: u64,
    /// sha256 in hexadecimal.
    pub sha256: String,
    /// When.
    pub created_at: Timestamp,
}
