//! Writing to the terminal or a pipe. A reader that went away is not an error, but the end.

use std::io::{self, Write};

use crate::stopped::Stopped;

/// What was asked for, to standard output.
pub(super) fn say(text: &str) -> Result<(), Stopped> {
    write(text.as_bytes())
}

/// The same for bytes.
pub(super) fn write(bytes: &[u8]) -> Result<(), Stopped> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // `spear node ls --watch | head` shall not go on for nobody.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Stopped::quietly(0)),
        Err(error) => Err(Stopped::failed(format!("cannot write to standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// An error, as one line.
pub(super) fn complain(line: &str) {
    hint(&format!("spear: {line}\n"));
}

/// Something beside what was asked for, to standard error.
pub(super) fn hint(text: &str) {
    // There is nobody left to tell when this fails.
    drop(io::stderr().lock().write_all(text.as_bytes()));
}
