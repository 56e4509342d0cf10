//! Random bytes of the system.

use super::{Answer, Call, Errno};

/// Bytes made between two looks for a stop.
const CHUNK: u32 = 64 * 1024;

pub(crate) fn random_get(call: &mut Call<'_>, buffer: u32, length: u32) -> Answer {
    call.memory.check(buffer, length)?;
    let mut chunk = vec![0; length.min(CHUNK) as usize];
    let mut done = 0;
    while done < length {
        call.check()?;
        let count = (length - done).min(CHUNK);
        let bytes = chunk.get_mut(..count as usize).unwrap_or_default();
        getrandom::fill(bytes).map_err(|_| Errno::Io)?;
        call.memory.write(buffer.checked_add(done).ok_or(Errno::Fault)?, bytes)?;
        done += count;
    }
    Ok(())
}
