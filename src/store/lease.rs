//! Leases: "exactly one does this", by records and guards alone.
//!
//! ```text
//!   lease/<name> {holder, until, epoch}
//!     absent ── take ──► held by A, epoch 1 ── renew (same epoch, new revision) ──► …
//!                           │ until + margin has passed: B takes, epoch 2
//!                           └ released: anybody takes at once, next epoch
//! ```
//! * A lease only says who should act. What makes acting safe is the fence: every commit of the holder carries
//!   [`Held::guard`], the revision of its lease, and is refused once somebody else has taken over, whatever any
//!   clock shows. Each renewal changes that revision: use the newest [`Held`].
//! * The holder measures its time by the monotonic clock from before it asked, so it stops early rather than late.
//!   Who wants to take over compares the wall clock with `until` and waits a margin of a tenth of the time (1 s at
//!   least) longer, for clocks that differ. Clocks that differ by more cost a take-over that came too early, never
//!   two holders' commits.

use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use types::{Clock, Timestamp};

use crate::{Batch, Error, Guard, Keyed, Rev, Store, Table, Versioned, encode};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct LeaseRecord {
    name: String,
    /// Nobody when empty: it was released.
    holder: String,
    until: Timestamp,
    epoch: u64,
}

impl Keyed for LeaseRecord {
    const PREFIX: &'static str = "lease/";
    fn id(&self) -> String {
        self.name.clone()
    }
}

/// The answer to asking for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours.
    Held(Held),
    /// Somebody else has it.
    Taken {
        /// Who.
        holder: String,
        /// Until when, if it is not renewed.
        until: Timestamp,
    },
}

/// A lease that is ours for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    key: String,
    /// The fencing number: the revision that gave us the lease.
    pub rev: Rev,
    /// How many holders there have been; the same over renewals.
    pub epoch: u64,
    /// Monotonic time at which it ends.
    ends: Duration,
}

impl Held {
    /// The batch, refused unless the lease is still ours when it is applied.
    #[must_use]
    pub fn guard(&self, batch: Batch) -> Batch {
        batch.guard(Guard::At(self.key.clone(), self.rev))
    }

    /// How long it is still ours without renewal.
    pub fn left(&self, clock: &dyn Clock) -> Duration {
        self.ends.saturating_sub(clock.monotonic())
    }
}

/// Asks for one lease in the name of one holder. Cheap to clone.
#[derive(Clone)]
pub struct Lease {
    table: Table<LeaseRecord>,
    store: Store,
    clock: Arc<dyn Clock>,
    name: String,
    holder: String,
    lasts: Duration,
}

impl Lease {
    /// For the lease `name`, held by `holder` (not empty, different for each process) for `lasts` at a time.
    pub fn new(store: &Store, clock: Arc<dyn Clock>, name: &str, holder: &str, lasts: Duration) -> Self {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        Self { table: Table::new(store), store: store.clone(), clock, name, holder, lasts }
    }

    /// Takes the lease if it is free or its time is over, and renews it if it is ours. Of several who ask at once
    /// one gets it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn claim(&self) -> Result<Claim, Error> {
        loop {
            let found = self.table.get(&self.name).await?;
            if let Some(Versioned { record, .. }) = &found
                && !self.free(record)
            {
                return Ok(Claim::Taken { holder: record.holder.clone(), until: record.until });
            }
            let (guard, epoch) = match &found {
                None => (Guard::Absent(self.key()), 1),
                Some(Versioned { record, modified }) => {
                    let again = u64::from(record.holder != self.holder);
                    (Guard::At(self.key(), *modified), record.epoch + again)
                }
            };
            match self.write(guard, epoch).await {
                Ok(held) => return Ok(Claim::Held(held)),
                // Somebody was faster: look who.
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps the lease; none when it has been lost.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn renew(&self, held: &Held) -> Result<Option<Held>, Error> {
        match self.write(Guard::At(held.key.clone(), held.rev), held.epoch).await {
            Ok(held) => Ok(Some(held)),
            Err(Error::Conflict(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives the lease up, so that nobody has to wait for its end. Harmless when it has been lost.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release(&self, held: Held) -> Result<(), Error> {
        let record = self.record(String::new(), Timestamp(0), held.epoch);
        match self.store.commit(held.guard(Batch::new()).put(held.key.clone(), encode(&record)?)).await {
            Ok(_) | Err(Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, guard: Guard, epoch: u64) -> Result<Held, Error> {
        let ends = self.clock.monotonic() + self.lasts;
        let until = Timestamp(self.clock.wall().0.saturating_add(millis(self.lasts)));
        let record = self.record(self.holder.clone(), until, epoch);
        let rev = self.store.commit(Batch::new().guard(guard).put(self.key(), encode(&record)?)).await?;
        Ok(Held { key: self.key(), rev, epoch, ends })
    }

    fn free(&self, record: &LeaseRecord) -> bool {
        let margin = (self.lasts / 10).max(Duration::from_secs(1));
        let over = record.until.0.saturating_add(millis(margin));
        record.holder.is_empty() || record.holder == self.holder || self.clock.wall().0 > over
    }

    fn record(&self, holder: String, until: Timestamp, epoch: u64) -> LeaseRecord {
        LeaseRecord { name: self.name.clone(), holder, until, epoch }
    }

    fn key(&self) -> String {
        Table::<LeaseRecord>::key(&self.name)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
