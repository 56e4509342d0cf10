//! What a line of a log may be.

use types::{Fault, LogLine};

/// Longest message of a line, bytes.
const MOST_MESSAGE: usize = 64 << 10;
/// The same in base64.
const MOST_RAW: usize = MOST_MESSAGE / 3 * 4 + 4;
/// Longest level of a line, bytes.
const MOST_LEVEL: usize = 32;

/// Refuses what is over a limit; `at` is the place of the line in its batch.
pub(super) fn check(at: usize, line: &LogLine) -> Result<(), Fault> {
    if line.seq == 0 {
        return Err(Fault::invalid_field(format!("lines[{at}].seq"), "0 is no number of a line; they begin with 1"));
    }
    if line.message.len() > MOST_MESSAGE {
        let wrong = format!("{} bytes; {MOST_MESSAGE} are allowed", line.message.len());
        return Err(Fault::invalid_field(format!("lines[{at}].message"), wrong));
    }
    if line.raw_base64.as_ref().is_some_and(|raw| raw.len() > MOST_RAW) {
        return Err(Fault::invalid_field(format!("lines[{at}].raw_base64"), format!("{MOST_RAW} bytes are allowed")));
    }
    if line.level.len() > MOST_LEVEL {
        let wrong = format!("{} bytes; {MOST_LEVEL} are allowed", line.level.len());
        return Err(Fault::invalid_field(format!("lines[{at}].level"), wrong));
    }
    Ok(())
}
