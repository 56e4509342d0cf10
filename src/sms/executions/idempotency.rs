//! Requests that can be sent again: `Idempotency-Key`, as draft-ietf-httpapi-idempotency-key-header has it.
//!
//! ```text
//!   key, request ─► known? ── no, or forgotten ──► execution and key in one commit, guarded by the key ─► answer
//!                     │                                      └ another caller was faster: look again
//!                     ├── the same request ─► its execution, whether it has ended or not ─► Idempotent-Replayed
//!                     └── another request ─► 422 that names the execution
//! ```
//! A key is known to its task, or to the making of tasks; a registry has one token, so its callers are not told apart.
//! It is kept for `executions.idempotency_keep`, and never longer than its execution, with which it goes: there are
//! never more keys than executions.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue};
use net::{
    idempotency::{self, HEADER, REPLAYED},
    problem::KEY_REUSED,
};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use store::{Batch, Guard, Op, Table, Versioned, encode};
use types::{ErrorKind, Execution, ExecutionId, Fault, Keyed, Remembered, TaskId, Timestamp};

use super::{NewRun, Service};

/// Keys that are looked at by one sweep.
const SWEPT: usize = 1000;

/// A key, as the sha256 of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    /// Of a request; none when it brings none.
    ///
    /// # Errors
    /// There are several, or it is not of the form.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Fault> {
        Ok(idempotency::key(headers)?.as_deref().map(Self::named))
    }

    /// Of what it says.
    pub(crate) fn named(key: &str) -> Self {
        Self(hex(Sha256::digest(key.as_bytes()).as_slice()))
    }

    /// The id of its record.
    fn id(&self, scope: Scope) -> String {
        match scope {
            Scope::Task(task) => format!("{task}/{}", self.0),
            Scope::New => format!("new/{}", self.0),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// Among which requests a key is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope {
    /// Those that run this task.
    Task(TaskId),
    /// Those that make tasks.
    New,
}

/// The sha256 of a request: of its parts with their names and lengths, so that no two requests run together.
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Of a request of this kind.
    pub(crate) fn new(kind: &str) -> Self {
        Self(Sha256::new()).with("kind", kind)
    }

    /// With a part.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, part: impl AsRef<[u8]>) -> Self {
        for bytes in [name.as_bytes(), part.as_ref()] {
            self.0.update((bytes.len() as u64).to_be_bytes());
            self.0.update(bytes);
        }
        self
    }

    /// With several parts of one name, perhaps none.
    #[must_use]
    pub(crate) fn with_all<T: AsRef<[u8]>>(self, name: &str, parts: impl IntoIterator<Item = T>) -> Self {
        parts.into_iter().fold(self, |all, part| all.with(name, part))
    }

    fn finish(self) -> String {
        hex(self.0.finalize().as_slice())
    }
}

impl NewRun {
    /// Adds what is asked for.
    pub(crate) fn written_to(&self, fingerprint: Fingerprint) -> Fingerprint {
        fingerprint
            .with("mode", if self.wait { "sync" } else { "async" })
            .with("input", &self.input)
            .with_all("timeout_ms", self.timeout_ms.map(u64::to_be_bytes))
            .with_all("callback_url", self.callback_url.as_deref())
    }
}

/// A request with a key.
pub(crate) struct Keyring {
    /// Of its record.
    id: String,
    fingerprint: String,
}

/// What is known of a key.
pub(crate) enum Recall {
    /// The request was made before.
    Same(Versioned<Remembered>),
    /// It is new, as long as this holds.
    New(Guard),
}

impl Keyring {
    pub(crate) fn new(key: &Key, scope: Scope, fingerprint: Fingerprint) -> Self {
        Self { id: key.id(scope), fingerprint: fingerprint.finish() }
    }

    /// Id of its record.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Adds to a batch that the request was made, and what it made.
    pub(crate) fn remember(
        &self,
        (task_id, execution_id): (TaskId, Option<ExecutionId>),
        made_at: Timestamp,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        let (id, fingerprint) = (self.id.clone(), self.fingerprint.clone());
        let record = Remembered { id, fingerprint, task_id, execution_id, made_at };
        batch.ops.push(Op::Put(record.key(), encode(&record)?));
        Ok(())
    }
}

impl Service {
    /// Looks a key up.
    ///
    /// # Errors
    /// `IDEMPOTENCY_KEY_REUSED` when another request had it.
    pub(crate) async fn recall(&self, keyring: &Keyring) -> Result<Recall, Fault> {
        let table = Table::<Remembered>::new(&self.store);
        let Some(found) = table.get(&keyring.id).await? else {
            return Ok(Recall::New(Guard::Absent(Table::<Remembered>::key(&keyring.id))));
        };
        let record = &found.record;
        let made_is_there = match record.execution_id {
            Some(id) => self.table.get(&id).await?.is_some(),
            None => true,
        };
        if self.forgotten(record) || !made_is_there {
            return Ok(Recall::New(Guard::At(record.key(), found.modified)));
        }
        if record.fingerprint != keyring.fingerprint {
            return Err(reused(record));
        }
        // What was made is seen by whoever asks for it now.
        if record.execution_id.is_some() {
            self.index.reached(found.modified).await;
        }
        self.figures.see(|figures| figures.replayed.inc());
        Ok(Recall::Same(found))
    }

    /// Has its time passed? By the wall clock, since it goes on while the process does not run; what a clock that jumps
    /// can do is to forget a key early or late.
    fn forgotten(&self, record: &Remembered) -> bool {
        let age = self.clock.wall().millis().saturating_sub(record.made_at.millis());
        u128::try_from(age).is_ok_and(|age| age >= self.config.get().idempotency_keep.as_millis())
    }

    /// Adds to a batch the removal of the key that made an execution, if that has not been given to another since.
    pub(super) async fn forget_key(&self, execution: &Execution, batch: &mut Batch) -> Result<(), Fault> {
        let Some(id) = &execution.remembered else { return Ok(()) };
        let found = Table::<Remembered>::new(&self.store).get(id).await?;
        if let Some(Versioned { record, modified }) = found
            && record.execution_id == Some(execution.id)
        {
            batch.guards.push(Guard::At(record.key(), modified));
            batch.ops.push(Op::Delete(record.key()));
        }
        Ok(())
    }

    /// Removes those of a page of keys whose time has passed, or whose task is gone where that is all they made; where
    /// the next page begins, none at the end.
    pub(super) async fn sweep_keys(&self, after: Option<String>) -> Result<Option<String>, Fault> {
        let page = Table::<Remembered>::new(&self.store).page(after.as_deref(), SWEPT).await?;
        let next = page.last().filter(|_| page.len() == SWEPT).map(|last| last.record.id.clone());
        let mut batch = Batch::new();
        for Versioned { record, modified } in page {
            let alone = record.execution_id.is_none() && self.fresh_task(record.task_id).await?.is_none();
            if alone || self.forgotten(&record) {
                batch.guards.push(Guard::At(record.key(), modified));
                batch.ops.push(Op::Delete(record.key()));
            }
        }
        if !batch.ops.is_empty() {
            match self.store.commit(batch).await {
                // Somebody used one of them: the next round takes the rest.
                Ok(_) | Err(store::Error::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(next)
    }
}

fn reused(record: &Remembered) -> Fault {
    let made = match record.execution_id {
        Some(id) => format!("execution {id}"),
        None => format!("task {}", record.task_id),
    };
    let detail = format!("another request had this key, and made {made}: give every request a key of its own");
    let message = format!("{HEADER}: {detail}");
    let mut fault = Fault::new(ErrorKind::Invalid, KEY_REUSED, message);
    fault.errors.push(types::FieldError { field: HEADER.to_owned(), detail });
    fault
}

/// An answer; marked, where it was given before.
pub(crate) fn answer(answer: impl IntoResponse, replayed: bool) -> Response {
    let mut response = answer.into_response();
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

#[cfg(test)]
mod tests;
