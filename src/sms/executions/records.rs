//! What is stored of an execution beside its record: its input and its result, each as bytes under its id.

use bytes::Bytes;
use types::{ExecutionId, Fault};

/// Longest input, bytes; one value of the store.
pub(crate) const MOST_INPUT: usize = store::MOST_VALUE;
/// Longest result, bytes; one value of the store.
pub(crate) const MOST_RESULT: usize = store::MOST_VALUE;
/// Longest time limit that can be asked for.
pub(crate) const MOST_TIMEOUT_MS: u64 = 24 * 3600 * 1000;

/// Key of an execution's input.
pub(crate) fn input_key(id: ExecutionId) -> String {
    format!("input/{id}")
}

/// Key of an execution's result.
pub(crate) fn result_key(id: ExecutionId) -> String {
    format!("result/{id}")
}

/// A run that is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewRun {
    /// Standard input of the guest.
    pub(crate) input: Bytes,
    /// Its time limit; none: the task's, else the node's.
    pub(crate) timeout_ms: Option<u64>,
    /// Is it made with its task?
    pub(crate) first: bool,
    /// Does who asks for it wait for its end?
    pub(crate) wait: bool,
    /// Who is told of its end.
    pub(crate) callback_url: Option<String>,
}

impl NewRun {
    /// Refuses what is over a limit.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.input.len() > MOST_INPUT {
            let message = format!("input: {} bytes; {MOST_INPUT} are allowed", self.input.len());
            return Err(Fault::new(types::ErrorKind::TooLarge, "INPUT_TOO_LARGE", message));
        }
        match self.timeout_ms {
            Some(millis) if millis == 0 || millis > MOST_TIMEOUT_MS => Err(Fault::invalid_field(
                "timeout_ms",
                format!("{millis} is out of range; use 1 to {MOST_TIMEOUT_MS}, or leave it out"),
            )),
            _ => Ok(()),
        }?;
        if self.wait && self.callback_url.is_some() {
            let wrong = "is for asynchronous runs: a synchronous one is told of the end by its answer";
            return Err(Fault::invalid_field("callback_url", wrong));
        }
        Ok(())
    }
}
