//! Writes an archive, piece by piece.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{borrow::Cow, io, ops::Bound};
use tokio::io::AsyncReadExt;
use types::Fault;

use super::{
    Summary,
    format::{self, DAMAGED, Damaged, Entry, HEAD, MANIFEST, Manifest, TRAILER, disk, hex},
    gather::{Attached, Source, TOGETHER},
};

/// Bytes read from a file at once.
const PIECE: usize = 256 * 1024;

/// Takes an archive.
pub trait Sink: Send {
    /// Takes the next bytes.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send;
}

/// Writes everything of a source; the records first, so that the moment they are of is let go early.
///
/// # Errors
/// Something could not be read or the sink takes no more; what was written by then is no archive.
pub async fn write(source: Source, sink: impl Sink) -> Result<Summary, Fault> {
    let Source { head, keeps, snapshot, attached, mut damaged, holds } = source;
    let seconds = format::seconds(&head);
    let mut writer = Writer { sink, seconds, entries: Vec::new(), bytes: 0 };
    writer.whole(HEAD, json(&head)?).await?;
    let (mut records, mut chunk) = (0, 0);
    for prefix in keeps {
        let mut last = None::<String>;
        loop {
            let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let page = snapshot.list(prefix, from, TOGETHER).await?;
            let Some(end) = page.last() else { break };
            last = Some(end.key.clone());
            records += page.len() as u64;
            let lines = tokio::task::spawn_blocking(move || format::lines(&page)).await;
            let lines = lines.map_err(|error| Fault::internal(error.to_string()))??;
            writer.whole(&format::records_path(chunk), lines).await?;
            chunk += 1;
        }
    }
    drop(snapshot);
    for file in &attached {
        let sha256 = writer.file(file).await?;
        if file.sha256.as_ref().is_some_and(|wanted| *wanted != sha256) {
            let detail = "its bytes are not those that were uploaded".to_owned();
            damaged.push(Damaged { path: file.path.clone(), detail });
        }
    }
    drop(holds);
    if !damaged.is_empty() {
        writer.whole(DAMAGED, json(&damaged)?).await?;
    }
    let manifest = json(&Manifest { entries: Cow::Borrowed(&writer.entries) })?;
    writer.whole(MANIFEST, manifest).await?;
    writer.put(Bytes::from(vec![0; TRAILER as usize])).await?;
    Ok(Summary { head, records, bytes: writer.bytes, damaged })
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|error| Fault::internal(error.to_string()))
}

struct Writer<S> {
    sink: S,
    seconds: u64,
    entries: Vec<Entry>,
    bytes: u64,
}

impl<S: Sink> Writer<S> {
    async fn put(&mut self, bytes: Bytes) -> Result<(), Fault> {
        self.bytes += bytes.len() as u64;
        self.sink
            .write(bytes)
            .await
            .map_err(|error| Fault::unavailable(format!("the backup cannot be written: {error}")))
    }

    async fn begin(&mut self, path: &str, bytes: u64) -> Result<(), Fault> {
        let header = format::header(path, bytes, self.seconds);
        let header = header.map_err(|error| Fault::internal(format!("{path}: {error}")))?;
        self.put(Bytes::copy_from_slice(&header)).await
    }

    async fn end(&mut self, path: &str, bytes: u64, hash: Sha256) -> Result<String, Fault> {
        let (padding, sha256) = (format::padding(bytes), hex(hash));
        self.put(Bytes::from(vec![0; padding as usize])).await?;
        self.entries.push(Entry { path: path.to_owned(), bytes, sha256: sha256.clone() });
        Ok(sha256)
    }

    /// An entry that is in memory.
    async fn whole(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), Fault> {
        let (length, hash) = (bytes.len() as u64, Sha256::new_with_prefix(&bytes));
        self.begin(path, length).await?;
        self.put(Bytes::from(bytes)).await?;
        self.end(path, length, hash).await.map(drop)
    }

    /// A file, as long as it was found; its sha256.
    async fn file(&mut self, attached: &Attached) -> Result<String, Fault> {
        let failed = |error: &io::Error| disk("read it for the backup", &attached.place, error);
        let one = attached.clone();
        let file = tokio::task::spawn_blocking(move || one.open()).await.map_err(io::Error::other).flatten();
        let file = file.map_err(|error| failed(&error))?;
        let (mut file, mut left, mut hash) = (tokio::fs::File::from_std(file), attached.bytes, Sha256::new());
        file.set_max_buf_size(PIECE);
        self.begin(&attached.path, attached.bytes).await?;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let mut piece = bytes::BytesMut::zeroed(most);
            let read = file.read(&mut piece).await.map_err(|error| failed(&error))?;
            if read == 0 {
                return Err(failed(&io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter; begin again")));
            }
            piece.truncate(read);
            hash.update(&piece);
            left -= read as u64;
            self.put(piece.freeze()).await?;
        }
        self.end(&attached.path, attached.bytes, hash).await
    }
}
