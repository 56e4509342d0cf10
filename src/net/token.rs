//! Bearer tokens: made, kept, read and compared.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use subtle::ConstantTimeEq;
use types::ErrorKind;

const RANDOM_BYTES: usize = 32;
const LEAST_CHARACTERS: usize = 16;
const MOST_CHARACTERS: usize = 4096;

/// A bearer token. Shown nowhere: `Debug` is redacted and there is no `Display`.
#[derive(Clone)]
pub struct Token {
    text: SecretString,
    digest: [u8; 32],
}

/// A token that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Its text is not a token.
    #[error("the token {0}")]
    Text(&'static str),
    /// A file whose content is not a token.
    #[error("{path} does not hold a token: it {reason}; restore it, or remove it to have a new one made")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file of ours that others may read.
    #[error("{path} can be read by others (mode {mode:03o}); change its token or run `chmod 600` on it")]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that could not be read or written.
    #[error("cannot {action} the token file {path}: {source}")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl TokenError {
    /// Kind of error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Text(_) | Self::Corrupt { .. } => ErrorKind::Invalid,
            Self::Exposed { .. } => ErrorKind::Denied,
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::File { .. } => ErrorKind::Unavailable,
        }
    }
}

impl Token {
    /// A token as given by the environment or a file; white space around it does not count.
    ///
    /// # Errors
    /// Fewer than 16 or more than 4096 characters, or one that cannot stand in a header.
    pub fn from_text(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() < LEAST_CHARACTERS {
            return Err(TokenError::Text("is too short: at least 16 characters are needed"));
        }
        if text.len() > MOST_CHARACTERS {
            return Err(TokenError::Text("is too long: at most 4096 characters are read"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Text("has a character that cannot stand in a header: use visible ASCII"));
        }
        Ok(Self { digest: Sha256::digest(text.as_bytes()).into(), text: SecretString::from(text) })
    }

    /// The token that a file holds. A file that everybody may read is warned of.
    ///
    /// # Errors
    /// The file cannot be read or does not hold a token.
    pub fn from_file(path: &Path) -> Result<Self, TokenError> {
        let (text, mode) = read(path)?;
        if mode & 0o007 != 0 {
            tracing::warn!(path = %path.display(), "everybody on this machine can read the token file");
        }
        Self::from_text(&text).map_err(|error| corrupt(path, &error))
    }

    /// The token kept in `dir` under `name`; made of 32 random bytes and written there (mode 0600, on disk
    /// before this returns) if there is none. Also tells the path and whether it was made now.
    ///
    /// # Errors
    /// The file is not one we made, others may read it, or the disk refuses.
    pub fn load_or_create(dir: &Path, name: &str) -> Result<(Self, PathBuf, bool), TokenError> {
        let path = dir.join(name);
        match load(&path) {
            Err(TokenError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(token) => return Ok((token, path, false)),
        }
        match create(dir, &path) {
            Ok(token) => Ok((token, path, true)),
            // Another process was faster: its token counts.
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok((load(&path)?, path, false)),
            Err(source) => Err(TokenError::File { action: "write", path, source }),
        }
    }

    /// Is `given` this token? Takes the same time whatever is given: digests of one length are compared.
    pub fn matches(&self, given: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(given.as_bytes()).into();
        given.ct_eq(&self.digest).into()
    }

    /// Is it the same token?
    pub fn is(&self, other: &Self) -> bool {
        self.digest.ct_eq(&other.digest).into()
    }

    /// The text itself, to show once or to send.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// `Bearer …`, marked as not to be logged.
    pub fn header(&self) -> http::HeaderValue {
        let mut value =
            http::HeaderValue::from_str(&format!("Bearer {}", self.expose())).expect("a token is visible ASCII");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

fn corrupt(path: &Path, error: &TokenError) -> TokenError {
    let reason = match error {
        TokenError::Text(reason) => reason,
        _ => "cannot be read",
    };
    TokenError::Corrupt { path: path.to_owned(), reason }
}

/// The text and the permission bits of a file, which may not be longer than a token.
fn read(path: &Path) -> Result<(String, u32), TokenError> {
    let failed = |source| TokenError::File { action: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    let mut bytes = Vec::new();
    file.take(MOST_CHARACTERS as u64 + 3).read_to_end(&mut bytes).map_err(failed)?;
    let text =
        String::from_utf8(bytes).map_err(|_| TokenError::Corrupt { path: path.to_owned(), reason: "is not text" })?;
    Ok((text, mode))
}

fn load(path: &Path) -> Result<Token, TokenError> {
    let (text, mode) = read(path)?;
    if mode & 0o077 != 0 {
        return Err(TokenError::Exposed { path: path.to_owned(), mode });
    }
    let whole = URL_SAFE_NO_PAD.decode(text.trim()).is_ok_and(|bytes| bytes.len() == RANDOM_BYTES);
    if !whole {
        let reason = "is not 32 random bytes in base64url";
        return Err(TokenError::Corrupt { path: path.to_owned(), reason });
    }
    Token::from_text(&text).map_err(|error| corrupt(path, &error))
}

fn create(dir: &Path, path: &Path) -> io::Result<Token> {
    let mut random = [0u8; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let token = Token::from_text(&URL_SAFE_NO_PAD.encode(random)).map_err(io::Error::other)?;
    fs::create_dir_all(dir)?;
    // Whoever starts at the same time, in this process too, writes a file of its own.
    let mut name = [0u8; 8];
    getrandom::fill(&mut name).map_err(|error| io::Error::other(error.to_string()))?;
    let unfinished = path.with_extension(format!("{:016x}.unfinished", u64::from_ne_bytes(name)));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        writeln!(file, "{}", token.expose())?;
        file.sync_all()?;
        // A link, not a rename: it never replaces a token that somebody else made meanwhile.
        fs::hard_link(&unfinished, path)
    })();
    let removed = fs::remove_file(&unfinished);
    written?;
    removed?;
    File::open(dir)?.sync_all()?;
    Ok(token)
}
