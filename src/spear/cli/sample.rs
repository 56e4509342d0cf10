//! `spear sample`: programs built into this one, so that the first minutes need no compiler.

use clap::Subcommand;
use std::{
    fs::{self, OpenOptions},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use super::output;
use crate::stopped::Stopped;

/// Name and text of every sample; the first line of the text says what it does.
const SAMPLES: [(&str, &str); 5] = [
    ("hello", include_str!("../../../samples/wat/hello.wat")),
    ("echo", include_str!("../../../samples/wat/echo.wat")),
    ("count", include_str!("../../../samples/wat/count.wat")),
    ("spin", include_str!("../../../samples/wat/spin.wat")),
    ("trap", include_str!("../../../samples/wat/trap.wat")),
];

/// Programs to try things with.
#[derive(Subcommand, Clone, Debug)]
pub(super) enum Sample {
    /// List them
    #[command(visible_alias = "list")]
    Ls,
    /// Write one to a file, ready to be uploaded
    Write {
        /// Its name, from `spear sample ls`
        name: String,
        /// Where to: a file, or - for standard output [default: NAME.wasm]
        file: Option<PathBuf>,
        /// Write its text (WAT) instead of the module
        #[arg(long)]
        text: bool,
        /// Overwrite a file that is something else
        #[arg(long)]
        force: bool,
    },
}

impl Sample {
    pub(super) fn run(self) -> Result<(), Stopped> {
        match self {
            Self::Ls => output::say(&list()),
            Self::Write { name, file, text, force } => write(&name, file, text, force),
        }
    }
}

fn list() -> String {
    let about = |text: &'static str| text.lines().next().unwrap_or_default().trim_start_matches(';').trim();
    SAMPLES.iter().map(|(name, text)| format!("{name:<8} {}\n", about(text))).collect()
}

fn write(name: &str, file: Option<PathBuf>, text: bool, force: bool) -> Result<(), Stopped> {
    let Some((name, source)) = SAMPLES.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = SAMPLES.iter().map(|(name, _)| *name).collect();
        return Err(Stopped::usage(format!("no sample is called {name:?}; there are {}", names.join(", "))));
    };
    let bytes = if text { source.as_bytes().to_vec() } else { module(name, source)? };
    let ending = if text { "wat" } else { "wasm" };
    let file = file.unwrap_or_else(|| PathBuf::from(format!("{name}.{ending}")));
    if file.as_os_str() == "-" {
        if !text && io::stdout().is_terminal() {
            let error = "a module is no text for a terminal: send it to a file, or add --text";
            return Err(Stopped::usage(error));
        }
        return output::write(&bytes);
    }
    save(&file, &bytes, force)?;
    output::say(&format!("{}\n", file.display()))
}

/// The text translated.
pub(super) fn module(name: &str, source: &str) -> Result<Vec<u8>, Stopped> {
    wat::parse_str(source).map_err(|error| Stopped::failed(format!("the sample {name} is broken: {error}")))
}

fn save(file: &Path, bytes: &[u8], force: bool) -> Result<(), Stopped> {
    let failed = |error: io::Error| Stopped::failed(format!("cannot write {}: {error}", file.display()));
    let opened = OpenOptions::new().write(true).create_new(!force).create(force).truncate(force).open(file);
    match opened {
        Ok(mut opened) => opened.write_all(bytes).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::read(file) {
            Ok(same) if same == bytes => Ok(()),
            _ => Err(Stopped::usage(format!("{} exists and is something else: --force overwrites it", file.display()))),
        },
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn every_sample_translates_and_says_what_it_does() {
        for (name, source) in SAMPLES {
            assert!(module(name, source).unwrap().starts_with(b"\0asm"), "{name}");
        }
        assert!(list().lines().all(|line| line.len() > 20), "{}", list());
    }

    #[test]
    fn every_file_in_samples_wat_is_built_in() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/wat");
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            assert!(SAMPLES.iter().any(|(name, _)| *name == stem), "{stem} is not among them");
        }
    }

    #[test]
    fn a_file_that_is_something_else_is_not_overwritten_without_being_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hello.wasm");
        write("hello", Some(file.clone()), false, false).unwrap();
        write("hello", Some(file.clone()), false, false).unwrap();
        let error = write("echo", Some(file.clone()), false, false).unwrap_err();
        assert_eq!(error.code, 2);
        assert!(error.message.contains("--force"), "{error}");
        write("echo", Some(file.clone()), false, true).unwrap();
        assert_eq!(fs::read(&file).unwrap(), module("echo", SAMPLES[1].1).unwrap());
        assert!(write("nothing", None, false, false).unwrap_err().message.contains("hello, echo"));
    }
}
