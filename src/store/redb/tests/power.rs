//! Power cuts: of what was not synced, any part may be on the disk, in any order, down to single sectors.

use std::{collections::BTreeMap, fs, io, sync::MutexGuard};

use super::*;

const SECTOR: usize = 512;

/// A disk that remembers what it has not been told to keep.
#[derive(Clone, Debug, Default)]
struct Volatile(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// As programs see it.
    now: Vec<u8>,
    /// As it was at the last sync.
    kept: Vec<u8>,
    /// Numbers of the sectors written since.
    loose: Vec<usize>,
    /// What the next syncs do: true is to lie.
    lies: bool,
    /// A power cut may come at each call; this is what the disk looked like at some of them.
    cuts: Vec<(Vec<u8>, Rev)>,
    /// The last acknowledged revision, told by the test.
    acknowledged: Rev,
    random: u64,
}

impl Platter {
    /// One of the states that a power cut can leave.
    fn cut(&mut self) {
        let mut random = Random(self.random);
        if random.below(4) == 0 {
            let mut disk = self.kept.clone();
            // The length is kept by the journal, at once or not; what it gained is zeros then.
            let grown = random.below(2) == 0;
            if grown || self.now.len() < self.kept.len() {
                disk.resize(self.now.len(), 0);
            }
            let how = random.below(3);
            for sector in &self.loose {
                let (from, to) = (sector * SECTOR, (sector + 1) * SECTOR);
                let arrived = how == 0 || (how == 1 && random.below(2) == 0);
                if arrived && to <= disk.len() && to <= self.now.len() {
                    disk[from..to].copy_from_slice(&self.now[from..to]);
                }
            }
            self.cuts.push((disk, self.acknowledged));
        }
        self.random = random.next();
    }
}

impl Volatile {
    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }
}

impl blocks::Disk for Volatile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().now.len() as u64)
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (platter, offset) = (self.lock(), offset as usize);
        let found = platter.now.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut platter, offset) = (self.lock(), offset as usize);
        let end = offset + data.len();
        if platter.now.len() < end {
            platter.now.resize(end, 0);
        }
        platter.now[offset..end].copy_from_slice(data);
        platter.loose.extend(offset / SECTOR..end.div_ceil(SECTOR));
        platter.cut();
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.lock();
        platter.now.resize(len as usize, 0);
        platter.cut();
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        let mut platter = self.lock();
        platter.cut();
        if !platter.lies {
            platter.kept = platter.now.clone();
            platter.loose.clear();
        }
        Ok(())
    }
}

/// Writes on a volatile disk and returns what power cuts left of it, each with the last acknowledged revision.
async fn cut_states(seed: u64, lies: bool) -> Vec<(Vec<u8>, Rev)> {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap().close().await.unwrap();
    super::start::wait_until_free(dir.path());
    let start = fs::read(dir.path().join(FILE)).unwrap();
    let platter = Platter { now: start.clone(), kept: start, lies, random: seed, ..Platter::default() };
    let disk = Volatile(Arc::new(Mutex::new(platter)));
    let of_store = disk.clone();
    let opener: Opener = Arc::new(move |_| Box::new(of_store.clone()));
    let engine = Redb::open_on(config(DataDir::open(dir.path()).unwrap()), opener).unwrap();
    let mut random = Random(seed);
    for n in 0..40u64 {
        let group = (0..1 + random.below(3)).map(|_| {
            let length = if random.below(8) == 0 { 20_000 } else { random.below(300) };
            let batch = Batch::new().put(format!("k/{}", random.below(20)), vec![n as u8; length as usize]);
            batch.put("count", n.to_string())
        });
        engine.commit_many(group.collect()).await.unwrap();
        let head = *engine.head().borrow();
        disk.lock().acknowledged = head;
        if n % 10 == 9 {
            engine.trim(head - 3).await.unwrap();
        }
    }
    let mut platter = disk.lock();
    std::mem::take(&mut platter.cuts)
}

/// Acknowledged revisions that are missing after a power cut.
async fn lost(disk: &[u8], acknowledged: Rev) -> Result<Rev, Error> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), disk).unwrap();
    let engine = open(dir.path())?;
    let head = *engine.head().borrow();
    let floor = engine.floor().await?;
    // Everything was looked at by the open; the log agrees with the records.
    let mut last = BTreeMap::new();
    for change in engine.changes(floor, 1000).await? {
        for item in change.items {
            last.insert(item.key, (change.rev, item.value));
        }
    }
    for (key, (rev, value)) in last {
        let record = engine.get(&key).await?;
        assert_eq!(record.map(|record| (record.modified, Some(record.value))), Some((rev, value)));
    }
    assert_eq!(put(&engine, "after", "the cut").await?, head + 1);
    Ok(acknowledged.saturating_sub(head))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let seed = u64::from(std::process::id()) ^ 0x9e37_79b9;
    let states = cut_states(seed, false).await;
    let mut random = Random(seed);
    let mut tried = 0;
    for (n, (disk, acknowledged)) in states.iter().enumerate() {
        if random.below(states.len() as u64) < 120 {
            let lost = lost(disk, *acknowledged).await;
            assert!(matches!(lost, Ok(0)), "seed {seed}, state {n}: {lost:?} of {acknowledged}");
            tried += 1;
        }
    }
    println!("{tried} of {} states", states.len());
    assert!(tried > 50);
}

/// The test above can fail: on a disk that does not keep what it was told to, writes are lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_cut_test_notices_a_disk_that_lies() {
    let states = cut_states(7, true).await;
    for (disk, acknowledged) in states.iter().rev().take(60) {
        if !matches!(lost(disk, *acknowledged).await, Ok(0)) {
            return;
        }
    }
    panic!("nothing was lost in {} states", states.len());
}
