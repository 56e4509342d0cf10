//! `--input`: what a program reads on its standard input.

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use std::{io::IsTerminal, path::Path};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::show::cell;
use crate::stopped::Stopped;

/// The longest input that the registry takes, bytes.
const MOST: u64 = 8 << 20;

/// The flag of what runs something.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Input {
    /// What it reads: a text, @FILE for what is in a file, or - for standard input
    #[arg(long, value_name = "TEXT|@FILE|-")]
    input: Option<String>,
}

impl Input {
    /// Was the flag given?
    pub(super) fn given(&self) -> bool {
        self.input.is_some()
    }

    /// The bytes; empty without the flag.
    pub(super) async fn read(&self) -> Result<Vec<u8>, Stopped> {
        match self.input.as_deref() {
            None => Ok(Vec::new()),
            Some("-") => standard_input().await,
            Some(text) => match text.strip_prefix('@') {
                Some(path) => file(Path::new(path)).await,
                None => limited("--input", text.as_bytes()).await,
            },
        }
    }

    /// The bytes; without the flag those of standard input, unless somebody sits there.
    pub(super) async fn read_or_piped(&self) -> Result<Vec<u8>, Stopped> {
        match self.input {
            None if !std::io::stdin().is_terminal() => standard_input().await,
            _ => self.read().await,
        }
    }
}

/// In base64, as bodies of requests have it; none for nothing.
pub(super) fn in_base64(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| STANDARD.encode(bytes))
}

async fn standard_input() -> Result<Vec<u8>, Stopped> {
    limited("standard input", tokio::io::stdin()).await
}

async fn file(path: &Path) -> Result<Vec<u8>, Stopped> {
    let opened = tokio::fs::File::open(path).await;
    let opened = opened.map_err(|error| Stopped::usage(format!("cannot read {}: {error}", path.display())))?;
    limited(&path.display().to_string(), opened).await
}

async fn limited(what: &str, from: impl AsyncRead + Unpin) -> Result<Vec<u8>, Stopped> {
    let mut bytes = Vec::new();
    let read = from.take(MOST + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| Stopped::usage(format!("cannot read {what}: {error}")))?;
    if bytes.len() as u64 > MOST {
        let most = cell::bytes(MOST);
        return Err(Stopped::usage(format!("{what} is longer than {most}, the most that an execution can be given")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test]
    async fn an_input_is_a_text_or_a_file_and_has_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::write(&path, b"\0\xff").unwrap();
        let read = async |text: &str| Input { input: Some(text.to_owned()) }.read().await;
        assert_eq!(read("text").await.unwrap(), b"text");
        assert_eq!(read(&format!("@{}", path.display())).await.unwrap(), b"\0\xff");
        assert!(read("@/no/such").await.unwrap_err().message.contains("/no/such"));
        assert_eq!(Input::default().read().await.unwrap(), b"");
        std::fs::write(&path, vec![0; 8 << 20]).unwrap();
        assert_eq!(read(&format!("@{}", path.display())).await.unwrap().len(), 8 << 20);
        std::fs::write(&path, vec![0; (8 << 20) + 1]).unwrap();
        assert!(read(&format!("@{}", path.display())).await.unwrap_err().message.contains("longer than 8MiB"));
        assert_eq!(in_base64(b"\0\xff").as_deref(), Some("AP8="));
        assert_eq!(in_base64(b""), None);
    }
}
