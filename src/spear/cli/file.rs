//! `spear file`.

use bytes::Bytes;
use clap::{Args, Subcommand};
use futures_util::StreamExt;
use http::Method;
use serde_json::{Value, json};
use std::{
    io,
    path::{Path, PathBuf},
    pin::pin,
};
use tokio::{
    fs::{self, File, OpenOptions},
    io::AsyncWriteExt,
};
use tokio_util::io::ReaderStream;
use types::Fault;

use super::{
    client::{Client, ClientArgs, segment},
    list::{Found, Listing},
    output,
    progress::Progress,
    show::{Column, Noun, Table, cell},
};
use crate::stopped::Stopped;

const EXAMPLES: &str = "\
Examples:
  spear file upload hello.wasm                 its URI is what a task's executable names
  tar c data | spear file upload - --name data.tar
  spear file download FILE_ID -O - | sha256sum";

const FILES: &str = "/api/v1/files";
/// Bytes read from a file at once.
const CHUNK: usize = 256 * 1024;

/// Files kept by the registry: programs, and what they need
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct FileCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// List files, newest first
    #[command(visible_alias = "list")]
    Ls {
        /// Only those whose name or id contains this, in any case
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show what is known of a file
    #[command(visible_alias = "describe")]
    Get {
        /// Its id
        #[arg(value_name = "FILE_ID")]
        file: String,
    },
    /// Upload files
    Upload {
        /// Files, or - for standard input
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
        /// Name to keep it under; for one file [default: the path's last part]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Download a file
    Download {
        /// Its id
        #[arg(value_name = "FILE_ID")]
        file: String,
        /// Where to: a file, a directory, or - for standard output [default: its name, here]
        #[arg(short = 'O', long, value_name = "PATH")]
        to: Option<PathBuf>,
        /// Replace what is there
        #[arg(long)]
        force: bool,
    },
    /// Remove files
    #[command(visible_alias = "delete")]
    Rm {
        /// Their ids
        #[arg(value_name = "FILE_ID", required = true)]
        files: Vec<String>,
    },
}

const FILE: Noun = Noun {
    kind: "file",
    list: "files",
    id: "id",
    columns: &[
        Column::new("FILE", |row, _| cell::of(row, "id")).whole(),
        Column::new("NAME", |row, _| cell::of(row, "name")),
        Column::new("SIZE", |row, _| cell::size(row, "len")),
        Column::new("AGE", |row, now| cell::age_of_seconds(row, "created_at", now)),
        Column::new("TYPE", |row, _| cell::of(row, "content_type")).wide(),
        Column::new("SHA256", |row, _| cell::of(row, "sha256")).wide(),
    ],
};

const UPLOADED: Noun = Noun {
    kind: "file",
    list: "files",
    id: "id",
    columns: &[
        Column::new("NAME", |row, _| cell::of(row, "name")),
        Column::new("SIZE", |row, _| cell::size(row, "len")),
        Column::new("URI", |row, _| cell::of(row, "uri")).whole(),
        Column::new("SHA256", |row, _| cell::of(row, "sha256")).wide(),
    ],
};

impl FileCommand {
    pub(super) async fn run(self, client: &Client) -> Result<(), Stopped> {
        match self.verb {
            Verb::Ls { search, listing } => client.list(&FILE, FILES, &[("q", search.as_deref())], &listing).await,
            Verb::Get { file } => {
                let body = meta(client, &file).await?;
                let mut row = body.clone();
                row["id"] = json!(file);
                let found = Found { body, rows: vec![row] };
                client.show.rows(&FILE, &found.body, &found.rows)
            }
            Verb::Upload { paths, name } => upload_all(client, &paths, name).await,
            Verb::Download { file, to, force } => download(client, &file, to, force).await,
            Verb::Rm { files } => {
                for file in files {
                    let path = format!("{FILES}/{}", segment(&file));
                    let body: Value = client.send(Method::DELETE, &path, None::<&()>).await?;
                    client.show.done(&FILE, &file, "removed", &body)?;
                }
                Ok(())
            }
        }
    }
}

async fn meta(client: &Client, file: &str) -> Result<Value, Stopped> {
    let body: Value = client.get(&format!("{FILES}/{}/meta", segment(file))).await?;
    match body["found"] == false {
        true => Err(client.refused(&Fault::not_found("FILE_NOT_FOUND", format!("there is no file {file}")))),
        false => Ok(body),
    }
}

async fn upload_all(client: &Client, paths: &[PathBuf], name: Option<String>) -> Result<(), Stopped> {
    if name.is_some() && paths.len() > 1 {
        return Err(Stopped::usage("--name is for one file: upload them one by one, or leave it out"));
    }
    let mut table: Option<Table> = None;
    for path in paths {
        let body = upload(client, path, name.clone()).await?;
        // Each is told of at once: what is up is up, whatever becomes of the next.
        match (client.show.is_table(), &mut table) {
            (false, _) => client.show.one(&UPLOADED, &body, &body)?,
            (true, Some(table)) => output::say(&table.more(&[body], types::Timestamp::default()))?,
            (true, none) => {
                let table = none.insert(client.show.table(&UPLOADED));
                output::say(&table.text(&[body], types::Timestamp::default()))?;
            }
        }
    }
    Ok(())
}

/// Uploads a file, or standard input when the path is `-`; the body of the answer.
pub(super) async fn upload(client: &Client, path: &Path, name: Option<String>) -> Result<Value, Stopped> {
    let stdin = path.as_os_str() == "-";
    let of_path = || path.file_name().filter(|_| !stdin).map(|name| name.to_string_lossy().into_owned());
    let name = name.or_else(of_path);
    let headers: Vec<_> = name.iter().map(|name| ("x-file-name", segment(name))).collect();
    let sent = if stdin {
        let progress = Progress::new(&client.show, "upload", None);
        let bytes = progress.count(ReaderStream::with_capacity(tokio::io::stdin(), CHUNK));
        client.rest.upload(FILES, &headers, None, bytes).await
    } else {
        let failed = |error: io::Error| Stopped::usage(format!("cannot read {}: {error}", path.display()));
        let file = File::open(path).await.map_err(failed)?;
        let data = file.metadata().await.map_err(failed)?;
        if data.is_dir() {
            return Err(Stopped::usage(format!("{} is a directory: pack it with tar first", path.display())));
        }
        // A pipe or a device has no length.
        let total = data.is_file().then_some(data.len());
        let progress = Progress::new(&client.show, name.as_deref().unwrap_or("upload"), total);
        let bytes = progress.count(ReaderStream::with_capacity(file, CHUNK));
        client.rest.upload(FILES, &headers, total, bytes).await
    };
    sent.map_err(|fault| client.refused(&fault))
}

/// Uploads what is in memory; the body of the answer.
pub(super) async fn upload_bytes(client: &Client, name: &str, bytes: Vec<u8>) -> Result<Value, Stopped> {
    let (total, bytes) = (bytes.len(), Bytes::from(bytes));
    let chunks = (0..total).step_by(CHUNK).map(move |from| Ok(bytes.slice(from..(from + CHUNK).min(total))));
    let progress = Progress::new(&client.show, name, Some(total as u64));
    let chunks = progress.count(futures_util::stream::iter(chunks));
    let sent = client.rest.upload(FILES, &[("x-file-name", segment(name))], Some(total as u64), chunks).await;
    sent.map_err(|fault| client.refused(&fault))
}

async fn download(client: &Client, file: &str, to: Option<PathBuf>, force: bool) -> Result<(), Stopped> {
    let path = format!("{FILES}/{}", segment(file));
    let place = place(client, file, to, force).await?;
    let content = client.rest.download(&path).await.map_err(|fault| client.refused(&fault))?;
    let progress = Progress::new(&client.show, &place.shown(), content.total_bytes);
    let mut bytes = pin!(progress.count(content.bytes));
    let broke_off = |error: io::Error| Stopped::unavailable(format!("the download broke off: {error}; repeat it"));
    let failed = |error: io::Error| Stopped::failed(format!("cannot write {}: {error}", place.shown()));
    match &place {
        Place::Stdout => {
            while let Some(chunk) = bytes.next().await {
                output::write(&chunk.map_err(broke_off)?)?;
            }
            return Ok(());
        }
        Place::Special(to) => {
            let mut out = OpenOptions::new().write(true).open(to).await.map_err(failed)?;
            while let Some(chunk) = bytes.next().await {
                out.write_all(&chunk.map_err(broke_off)?).await.map_err(failed)?;
            }
            out.flush().await.map_err(failed)?;
        }
        Place::File(to) => {
            let (unfinished, mut out) = Unfinished::beside(to).await?;
            while let Some(chunk) = bytes.next().await {
                out.write_all(&chunk.map_err(broke_off)?).await.map_err(failed)?;
            }
            out.flush().await.map_err(failed)?;
            out.sync_all().await.map_err(failed)?;
            fs::rename(&unfinished.path, to).await.map_err(failed)?;
        }
    }
    progress.finish();
    output::say(&format!("{}\n", place.shown()))
}

/// Where a download goes.
enum Place {
    Stdout,
    /// A device or a pipe, which is written to.
    Special(PathBuf),
    /// A file, which is there when it is whole.
    File(PathBuf),
}

impl Place {
    fn shown(&self) -> String {
        match self {
            Self::Stdout => "-".to_owned(),
            Self::Special(path) | Self::File(path) => path.display().to_string(),
        }
    }
}

async fn place(client: &Client, file: &str, to: Option<PathBuf>, force: bool) -> Result<Place, Stopped> {
    let to = match to {
        Some(to) if to.as_os_str() == "-" => return Ok(Place::Stdout),
        Some(to) if fs::metadata(&to).await.is_ok_and(|data| data.is_dir()) => {
            to.join(own_name(file, &meta(client, file).await?)?)
        }
        Some(to) => to,
        None => own_name(file, &meta(client, file).await?)?,
    };
    match fs::metadata(&to).await {
        Ok(data) if data.is_dir() => Err(Stopped::usage(format!("{} is a directory: -O names a file", to.display()))),
        Ok(data) if !data.is_file() => Ok(Place::Special(to)),
        Ok(_) if !force => {
            Err(Stopped::usage(format!("{} exists: --force replaces it, -O names another", to.display())))
        }
        _ => Ok(Place::File(to)),
    }
}

/// The last part of a file's name: what somebody called it must not lead out of here.
fn own_name(file: &str, meta: &Value) -> Result<PathBuf, Stopped> {
    let name = meta["name"].as_str().and_then(|name| Path::new(name).file_name());
    let name = name.filter(|name| *name != "-").map(PathBuf::from);
    name.ok_or_else(|| Stopped::usage(format!("the file {file} has no name to save it under: give one with -O")))
}

/// A download that is not complete; removed unless it becomes so.
struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    async fn beside(to: &Path) -> Result<(Self, File), Stopped> {
        let mut name = to.file_name().map(std::ffi::OsStr::to_owned).unwrap_or_default();
        name.push(format!(".{}.unfinished", std::process::id()));
        let path = to.with_file_name(name);
        let failed = |error: io::Error| Stopped::failed(format!("cannot write {}: {error}", path.display()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path).await.map_err(failed)?;
        Ok((Self { path }, file))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already when it has become whole.
        drop(std::fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_files_name_leads_nowhere_but_here() {
        let named = |name: Value| own_name("f", &json!({ "name": name }));
        assert_eq!(named(json!("a.wasm")).unwrap(), PathBuf::from("a.wasm"));
        assert_eq!(named(json!("../../etc/passwd")).unwrap(), PathBuf::from("passwd"));
        assert_eq!(named(json!("/etc/passwd")).unwrap(), PathBuf::from("passwd"));
        for none in [json!(".."), json!("/"), json!(""), json!("-"), Value::Null] {
            assert!(named(none).unwrap_err().message.contains("-O"));
        }
    }
}
