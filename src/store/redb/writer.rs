//! The write thread: the one place that changes the file.

use ::redb::{ReadableTable, Table, WriteTransaction};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use types::{Clock, Timestamp};

use super::{
    ballast::Ballast,
    format::{self, LOG, Meta, RECORDS, record_revs},
    slot::{Core, Trouble},
    space::{self, Reserve},
};
use crate::{Batch, Change, ChangeItem, Conflict, Error, Guard, Op, Rev};

/// Log entries removed in one transaction, so that commits do not wait long for trimming.
const TRIM_STEP: u64 = 2048;

type Answer<T> = oneshot::Sender<Result<T, Error>>;
type Done = Vec<Result<Rev, Conflict>>;
type Records<'a> = Table<'a, &'static [u8], &'static [u8]>;

/// What the thread is asked for.
pub(super) enum Request {
    Commit(Vec<Batch>, Answer<Done>),
    /// Answers whether there is more to trim.
    Trim(Rev, Answer<bool>),
    Close(Answer<()>),
}

pub(super) struct Writer {
    pub core: Arc<Core>,
    pub clock: Arc<dyn Clock>,
    pub reserve: Reserve,
    pub ballast: Ballast,
}

impl Writer {
    /// Serves until nobody can ask any more, and closes then.
    pub(super) fn run(self, mut waiting: mpsc::Receiver<Request>) {
        while let Some(request) = waiting.blocking_recv() {
            // Whoever has gone away does not want to know.
            match request {
                Request::Commit(batches, answer) => drop(answer.send(self.commit(&batches))),
                Request::Trim(upto, answer) => drop(answer.send(self.trim(upto))),
                Request::Close(answer) => drop(answer.send(self.core.close())),
            }
        }
        match self.core.close() {
            Ok(()) | Err(Error::Closed) => {}
            Err(error) => tracing::error!(%error, "the store was not closed in order"),
        }
    }

    fn commit(&self, batches: &[Batch]) -> Result<Done, Error> {
        let time = self.clock.wall();
        let write = || {
            self.core.write(|txn, meta| {
                let done = apply(txn, meta, batches, time)?;
                Ok((done, meta.head))
            })
        };
        let (done, head) = if frees(batches) {
            self.at_any_rate(write)?
        } else {
            space::check(self.core.dir.path(), self.reserve, room(batches))?;
            self.ballast.hold();
            write()?
        };
        self.core.head.send_if_modified(|announced| std::mem::replace(announced, head) != head);
        Ok(done)
    }

    fn trim(&self, upto: Rev) -> Result<bool, Error> {
        let write = || {
            self.core.write(|txn, meta| {
                let upto = upto.min(meta.head);
                let last = upto.min(meta.floor.saturating_add(TRIM_STEP));
                if last <= meta.floor {
                    return Ok(false);
                }
                let mut log = txn.open_table(LOG)?;
                for rev in meta.floor + 1..=last {
                    log.remove(rev)?;
                }
                meta.floor = last;
                Ok(last < upto)
            })
        };
        self.at_any_rate(write)
    }

    /// Writes something that makes room in the end: on a full disk with the room that is held for it.
    fn at_any_rate<T>(&self, write: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        match write() {
            Err(Error::Full { .. }) if self.ballast.give_back() => write(),
            done => done,
        }
    }
}

/// Applies batches in order; a refused one leaves no trace.
fn apply(txn: &WriteTransaction, meta: &mut Meta, batches: &[Batch], time: Timestamp) -> Result<Done, Trouble> {
    let mut records = txn.open_table(RECORDS)?;
    let mut log = txn.open_table(LOG)?;
    let mut done = Vec::with_capacity(batches.len());
    for batch in batches {
        if let Some(conflict) = refused(&records, &batch.guards)? {
            done.push(Err(conflict));
            continue;
        }
        meta.head += 1;
        let rev = meta.head;
        let mut items = Vec::with_capacity(batch.ops.len());
        for op in &batch.ops {
            items.extend(change(&mut records, op, rev)?);
        }
        let change = Change { rev, items };
        if log.insert(rev, format::change(&change, time).as_slice())?.is_some() {
            return Err(Trouble::Damage(format!("the log already has an entry {rev}")));
        }
        done.push(Ok(rev));
    }
    Ok(done)
}

fn refused(records: &Records<'_>, guards: &[Guard]) -> Result<Option<Conflict>, Trouble> {
    for guard in guards {
        let (key, wanted) = match guard {
            Guard::Absent(key) => (key, None),
            Guard::At(key, rev) => (key, Some(*rev)),
        };
        let actual = revs(records, key)?.map(|(_, modified)| modified);
        if actual != wanted {
            return Ok(Some(Conflict { key: key.clone(), actual }));
        }
    }
    Ok(None)
}

fn change(records: &mut Records<'_>, op: &Op, rev: Rev) -> Result<Option<ChangeItem>, Trouble> {
    match op {
        Op::Put(key, value) => {
            let created = revs(records, key)?.map(|(created, _)| created);
            let bytes = format::record(key, value, created.unwrap_or(rev), rev);
            records.insert(key.as_bytes(), bytes.as_slice())?;
            Ok(Some(ChangeItem { key: key.clone(), value: Some(value.clone()), created: created.is_none() }))
        }
        Op::Delete(key) => {
            let was_there = records.remove(key.as_bytes())?.is_some();
            Ok(was_there.then(|| ChangeItem { key: key.clone(), value: None, created: false }))
        }
    }
}

/// When a record was made and changed last.
fn revs(records: &Records<'_>, key: &str) -> Result<Option<(Rev, Rev)>, Trouble> {
    let Some(found) = records.get(key.as_bytes())? else { return Ok(None) };
    let revs = record_revs(key.as_bytes(), found.value());
    revs.map(Some).map_err(|detail| Trouble::Damage(format!("record {key:?}: {detail}")))
}

/// Do they only remove?
fn frees(batches: &[Batch]) -> bool {
    batches.iter().flat_map(|batch| &batch.ops).all(|op| matches!(op, Op::Delete(_)))
}

/// Bytes that a group takes at most: its values stand in the records and in the log, and pages are rewritten whole.
fn room(batches: &[Batch]) -> u64 {
    const PER_OP: u64 = 16 * 1024;
    let ops = batches.iter().flat_map(|batch| &batch.ops);
    ops.map(|op| PER_OP + if let Op::Put(_, value) = op { 3 * value.len() as u64 } else { 0 }).sum()
}
