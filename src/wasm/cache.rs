//! Compiled artifacts on disk. What is loaded from here is machine code that runs inside this process, so
//! nothing of a file is used before all of it has been verified.
//!
//! ```text
//!   magic 8 │ version u32 │ settings length u32 │ settings │ identity 32 │ module blake3 32 │ facts u8 │
//!   artifact length u64 │ artifact blake3 32 │ zeros, so that the whole is a multiple of 64 │
//!   blake3 of everything before 32 ║ artifact                               (numbers little-endian)
//! ```
//! The identity is what the module is known by before it is read, so that it need not be read. The settings name
//! wasmer's version, the processor's features and what was compiled in; another daemon or machine compiles again.
//! Files are written under another name and renamed, and never written again; the directory is private. They are
//! mapped, not read: to copy them takes longer than all the rest of a first call.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    engine::{self, Compiler, Loaded},
    scan::Facts,
};
use bytes::Bytes;
use memmap2::MmapOptions;
use runtime::Artifact;

const MAGIC: &[u8; 8] = b"SPEARART";
/// Version of the header.
const VERSION: u32 = 3;
const HASH: usize = blake3::OUT_LEN;

/// The code of an artifact begins at a multiple of this: what reads it wants it aligned.
const ALIGN: usize = 64;

/// A module, by what it is known by and by its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashes {
    /// See [`identity`].
    pub(crate) identity: blake3::Hash,
    /// Of its bytes.
    pub(crate) module: blake3::Hash,
}

/// What a module is known by: its digest and its size.
pub(crate) fn identity(artifact: &Artifact) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&artifact.size.to_le_bytes()).update(artifact.digest.as_bytes());
    hasher.finalize()
}

/// The header of an artifact.
pub(crate) fn header(settings: &str, source: Hashes, facts: Facts, artifact: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(settings.len() + 256);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    // The settings are our own short text.
    bytes.extend_from_slice(&u32::try_from(settings.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(settings.as_bytes());
    bytes.extend_from_slice(source.identity.as_bytes());
    bytes.extend_from_slice(source.module.as_bytes());
    bytes.push(facts.to_byte());
    bytes.extend_from_slice(&(artifact.len() as u64).to_le_bytes());
    bytes.extend_from_slice(blake3::hash(artifact).as_bytes());
    bytes.resize(bytes.len() + padding(bytes.len()), 0);
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

/// Zeros after so many bytes of a header.
fn padding(length: usize) -> usize {
    (length + HASH).next_multiple_of(ALIGN) - HASH - length
}

/// Length of the header, and what it tells of the module, when every part of the file is what it should be. The bytes
/// of the module are compared where they are known.
///
/// # Errors
/// What is wrong, for the log.
fn verify(
    file: &[u8],
    settings: &str,
    identity: blake3::Hash,
    module: Option<blake3::Hash>,
) -> Result<(usize, Facts), &'static str> {
    let mut rest = file;
    let mut take = |count: usize| -> Result<&[u8], &'static str> {
        let (piece, left) = rest.split_at_checked(count).ok_or("it is cut short")?;
        rest = left;
        Ok(piece)
    };
    if take(MAGIC.len())? != MAGIC {
        return Err("it is not an artifact");
    }
    if take(4)? != VERSION.to_le_bytes() {
        return Err("its header has another version");
    }
    let length = take(4)?.first_chunk().copied().map_or(0, u32::from_le_bytes);
    let settings_length = usize::try_from(length).map_err(|_| "it is cut short")?;
    let found = take(settings_length)?;
    let other_settings = found != settings.as_bytes();
    let other_identity = take(HASH)? != identity.as_bytes();
    let found = take(HASH)?;
    let other_module = other_identity || module.is_some_and(|module| found != module.as_bytes());
    let facts = take(1)?.first().copied().and_then(Facts::from_byte);
    let size = take(8)?.first_chunk().copied().map_or(0, u64::from_le_bytes);
    let hash = take(HASH)?;
    let before = MAGIC.len() + 4 + 4 + settings_length + 2 * HASH + 1 + 8 + HASH;
    take(padding(before))?;
    let covered = file.len() - rest.len();
    let (head, tail) = rest.split_at_checked(HASH).ok_or("it is cut short")?;
    if file.get(..covered).is_none_or(|before| blake3::hash(before).as_bytes() != head) {
        return Err("its header is damaged");
    }
    if other_settings {
        return Err("it was made by another version, with other settings or for another processor");
    }
    if other_module {
        return Err("it belongs to another module");
    }
    if tail.len() as u64 != size {
        return Err("it is cut short");
    }
    if blake3::hash(tail).as_bytes() != hash {
        return Err("its code is damaged");
    }
    Ok((covered + HASH, facts.ok_or("its header tells what is not known")?))
}

/// The directory.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    most_bytes: u64,
    settings: [(Compiler, String); 2],
}

impl Cache {
    /// Opens or makes it, readable by nobody else, and removes what an earlier process left half-written.
    pub(crate) fn open(dir: &Path, most_bytes: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        let settings = [Compiler::Singlepass, Compiler::Cranelift].map(|it| (it, engine::settings(it)));
        let cache = Self { dir: std::path::absolute(dir)?, most_bytes, settings };
        for entry in fs::read_dir(&cache.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(path)?;
            }
        }
        Ok(cache)
    }

    fn path(&self, identity: blake3::Hash, compiler: Compiler) -> PathBuf {
        self.dir.join(format!("{identity}-{}.artifact", compiler.as_str()))
    }

    /// A name that no other compilation uses.
    pub(crate) fn temporary(&self, identity: blake3::Hash) -> io::Result<PathBuf> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
        Ok(self.dir.join(format!("{identity}-{:016x}.new", u64::from_le_bytes(random))))
    }

    /// The module, if its artifact is here and whole. One that is not is removed.
    pub(crate) fn load(&self, identity: blake3::Hash, compiler: Compiler) -> Option<Loaded> {
        let path = self.path(identity, compiler);
        let problem = match File::open(&path) {
            Ok(file) => match self.accept(&file, identity, None, compiler) {
                Ok(loaded) => {
                    // The modification time is the time of the last use; without it the file goes earlier.
                    if let Err(error) = touch(&file) {
                        tracing::debug!(%error, "the artifact's time cannot be set");
                    }
                    return Some(loaded);
                }
                Err(problem) => problem,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => error.to_string(),
        };
        tracing::warn!(path = %path.display(), problem, "compiled artifact is not usable, compiling again");
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "compiled artifact cannot be removed");
        }
        None
    }

    /// Verifies and loads what the child wrote, and keeps it under its final name.
    ///
    /// # Errors
    /// What is wrong with it. That it cannot be kept is only logged: it can be used all the same.
    pub(crate) fn adopt(&self, temporary: &Path, source: Hashes, compiler: Compiler) -> Result<Loaded, String> {
        let file = File::open(temporary).map_err(|error| error.to_string())?;
        let loaded = self.accept(&file, source.identity, Some(source.module), compiler)?;
        let kept = fs::rename(temporary, self.path(source.identity, compiler));
        if let Err(error) = kept.and_then(|()| self.trim()) {
            tracing::warn!(dir = %self.dir.display(), %error, "the compiled artifact cannot be kept");
        }
        Ok(loaded)
    }

    #[expect(unsafe_code, reason = "the one place that loads machine code")]
    fn accept(
        &self,
        file: &File,
        identity: blake3::Hash,
        module: Option<blake3::Hash>,
        compiler: Compiler,
    ) -> Result<Loaded, String> {
        let settings = self.settings.iter().find(|(of, _)| *of == compiler).map_or("", |(_, settings)| settings);
        // SAFETY: a file of ours in a directory that only we can write to; it had its last byte written before it was
        // opened here, and is only ever renamed or removed after that, which takes nothing from who has it mapped.
        let file = unsafe { MmapOptions::new().populate().map_copy_read_only(file) };
        let file = Bytes::from_owner(file.map_err(|error| error.to_string())?);
        let (header, facts) = verify(&file, settings, identity, module)?;
        // SAFETY: these very bytes have the checksum that our own compiler child wrote, with the settings of this
        // process.
        unsafe { Loaded::new(file.slice(header..), compiler, facts) }
    }

    /// Removes what was not used for longest until the rest fits.
    fn trim(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if entry.path().extension().is_some_and(|extension| extension == "artifact") {
                files.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut sum: u64 = files.iter().map(|(_, size, _)| size).sum();
        // The last one is the newest: it stays even if it is too large alone.
        for (_, size, path) in files.iter().take(files.len().saturating_sub(1)) {
            if sum <= self.most_bytes {
                break;
            }
            fs::remove_file(path)?;
            sum = sum.saturating_sub(*size);
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "a file's time is compared with other files' times only")]
fn touch(file: &File) -> io::Result<()> {
    file.set_modified(SystemTime::now())
}

#[cfg(test)]
mod tests;
