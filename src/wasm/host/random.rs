//! Random bytes of the system.

use super::{Answer, Call, Errno};

/// Bytes made between two looks for a stop.
const CHUNK: u32 = 64 * 1024;

pub(crate) fn random_get(call: &mut Call<'_>, buffer: u32, length: u32) -> Answer {
    call.memory.check(buffer, length)?;
    let mut done = 0;
    while done < length {
        call.check()?;
        let count = (length - done).min(CHUNK);
        let bytes = call.memory.bytes_mut(buffer.checked_add(done).ok_or(Errno::Fault)?, count)?;
        getrandom::fill(bytes).map_err(|_| Errno::Io)?;
        done += count;
    }
    Ok(())
}
