//! The form of an archive: a tar whose every byte is determined by what is in it.
//!
//! ```text
//!   spear-backup.json      what it is: format, kind, program, time, log, revision
//!   records/00000000.jsonl records in the order of their keys: {"key","created","modified","text"|"base64"} a line
//!   files/<id>  logs/<id>.ndjson  objects/<id>  node-id
//!   damaged.json           only if something was damaged before: [{"path","detail"}]
//!   manifest.json          {"entries":[{"path","bytes","sha256"}]} of all of the above
//! ```
//! Headers are those of GNU tar with mode 0600, owner 0 and the time of the backup; the end is two blocks of zeros.
//! So nothing can be changed, cut off or added without a difference that is seen.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt::Write as _, io, path::Path};
use store::{Record, Rev};
use tar::{EntryType, Header};
use types::{ErrorKind, Fault, LogId};

/// Newest form that this program knows.
pub(super) const FORMAT: u32 = 1;
/// Bytes of a block of tar.
pub(super) const BLOCK: usize = 512;
/// Zeros at the end.
pub(super) const TRAILER: u64 = 2 * BLOCK as u64;
/// First entry.
pub(super) const HEAD: &str = "spear-backup.json";
/// Last entry but one, when there is one.
pub(super) const DAMAGED: &str = "damaged.json";
/// Last entry.
pub(super) const MANIFEST: &str = "manifest.json";

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Form of the archive.
    pub format: u32,
    /// Whose directory it is of: `sms` or `spearlet`.
    pub kind: String,
    /// Version of the program that wrote it.
    pub program: String,
    /// When, milliseconds since 1970-01-01 UTC.
    pub created_at_ms: i64,
    /// The log of changes that the revision is of.
    pub log_id: LogId,
    /// The revision that it shows.
    pub rev: Rev,
    /// Files and logs in it.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
}

/// A file that was damaged or missing before it was backed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Damaged {
    /// Its path in the data directory.
    pub path: String,
    /// What is wrong with it.
    pub detail: String,
}

/// An entry as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub path: String,
    pub bytes: u64,
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest<'a> {
    pub entries: Cow<'a, [Entry]>,
}

/// One record as a line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    key: Cow<'a, str>,
    created: Rev,
    modified: Rev,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Records as lines; their bytes come back exactly.
pub(super) fn lines(records: &[Record]) -> Result<Vec<u8>, Fault> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut out = Vec::new();
    for record in records {
        let text = std::str::from_utf8(&record.value).ok();
        let base64 = text.is_none().then(|| STANDARD.encode(&record.value));
        let line = Line {
            key: Cow::Borrowed(&record.key),
            created: record.created,
            modified: record.modified,
            text: text.map(Cow::Borrowed),
            base64,
        };
        serde_json::to_writer(&mut out, &line).map_err(|error| Fault::internal(error.to_string()))?;
        out.push(b'\n');
    }
    Ok(out)
}

/// A record from its line.
pub(super) fn record(line: &[u8]) -> Result<Record, String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let value = match (line.text, line.base64) {
        (Some(text), None) => text.into_owned().into_bytes(),
        (None, Some(text)) => STANDARD.decode(text).map_err(|error| error.to_string())?,
        _ => return Err("a record has either text or base64".to_owned()),
    };
    Ok(Record { key: line.key.into_owned(), value: value.into(), created: line.created, modified: line.modified })
}

/// Name of the n-th piece of records.
pub(super) fn records_path(n: u64) -> String {
    format!("records/{n:08}.jsonl")
}

/// Is it a path that a file of an archive may have? Nothing else is ever written to a disk.
pub(super) fn is_file_path(path: &str) -> bool {
    let Some((dir, name)) = path.split_once('/') else { return path == "node-id" };
    let stem = match dir {
        "files" | "objects" => Some(name),
        "logs" => name.strip_suffix(".ndjson"),
        _ => None,
    };
    let plain =
        |stem: &str| stem.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    stem.is_some_and(|stem| (1..=64).contains(&stem.len()) && plain(stem))
}

/// The one header that an entry may have.
pub(super) fn header(path: &str, bytes: u64, seconds: u64) -> io::Result<[u8; BLOCK]> {
    let mut header = Header::new_gnu();
    header.set_path(path)?;
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(seconds);
    header.set_size(bytes);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// Zeros behind an entry.
pub(super) fn padding(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK as u64) - bytes
}

/// The time of a backup as headers have it.
pub(super) fn seconds(head: &Head) -> u64 {
    u64::try_from(head.created_at_ms / 1000).unwrap_or(0)
}

pub(super) fn hex(hash: sha2::Sha256) -> String {
    sha2::Digest::finalize(hash).iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// The archive is not what was written.
pub(super) fn damaged(detail: impl AsRef<str>) -> Fault {
    Fault::new(ErrorKind::Invalid, "BACKUP_DAMAGED", format!("the backup is damaged: {}", detail.as_ref()))
}

/// The disk does not do what is asked.
pub(super) fn disk(what: &str, path: &Path, error: &io::Error) -> Fault {
    let message = format!("{}: cannot {what}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Fault::new(ErrorKind::StorageFull, "STORAGE_FULL", message)
        }
        _ => Fault::new(ErrorKind::Internal, "STORAGE_FAILED", message),
    }
}
