//! Flipped bits and missing ends: found, or harmless; never a wrong value, never a panic that gets out.

use std::{collections::BTreeMap, fs, io, os::unix::fs::FileExt};

use super::*;

const FLIPS: usize = 300;
const CUTS: usize = 60;

/// A file whose fsync is left out: thousands of them would only cost time here.
#[derive(Debug)]
struct Hasty(File);

impl blocks::Disk for Hasty {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Without memory for pages, so that every read goes to the file.
fn open_hasty(dir: &Path) -> Result<Redb, Error> {
    let config = Config { cache_bytes: 0, ..config(DataDir::open(dir)?) };
    Redb::open_on(config, Arc::new(|file| Box::new(Hasty(file))))
}

/// What must be read, or nothing.
struct Model {
    records: BTreeMap<String, Record>,
    changes: Vec<Change>,
}

/// A store of several pages and all kinds of entries, as bytes: closed in order, and as a crash leaves it.
async fn store() -> (Model, Vec<u8>, Vec<u8>, String) {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_hasty(dir.path()).unwrap();
    for n in 0..120u32 {
        let value = format!("{n}:").repeat(if n % 10 == 0 { 3000 } else { 20 });
        let batch = Batch::new().put(format!("task/{:03}", n % 90), value).put("last", n.to_string());
        engine.commit_many(vec![batch.delete(format!("task/{:03}", (n * 7) % 50))]).await.unwrap();
    }
    engine.trim(15).await.unwrap();
    let crashed = fs::read(dir.path().join(FILE)).unwrap();
    let records = engine.list("", None, 1000).await.unwrap().records;
    let changes = engine.changes(15, 1000).await.unwrap();
    engine.close().await.unwrap();
    let closed = fs::read(dir.path().join(FILE)).unwrap();
    let mark = fs::read_to_string(dir.path().join("store.clean")).unwrap();
    let records = records.into_iter().map(|record| (record.key.clone(), record)).collect();
    (Model { records, changes }, closed, crashed, mark)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    RefusedAtStart,
    FoundAtRead,
    Harmless,
}

/// A directory with these bytes as its store.
fn laid_out(bytes: &[u8], mark: Option<&str>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), bytes).unwrap();
    mark.inspect(|mark| fs::write(dir.path().join("store.clean"), mark).unwrap());
    dir
}

/// Opens damaged bytes and reads everything, in every way there is.
async fn try_out(bytes: &[u8], mark: Option<&str>, model: &Model, what: &str) -> Fate {
    let dir = laid_out(bytes, mark);
    match open_hasty(dir.path()) {
        Ok(engine) => read_all(&engine, model, what).await,
        Err(Error::Corrupt { path, .. } | Error::Foreign { path, .. }) => {
            assert_eq!(path, dir.path().join(FILE), "{what}");
            Fate::RefusedAtStart
        }
        Err(error) => panic!("{what}: {error:?}"),
    }
}

/// Damages the file of a store that is open.
async fn try_out_running(bytes: &[u8], mark: &str, flip: (usize, u8), model: &Model, what: &str) -> Fate {
    let dir = laid_out(bytes, Some(mark));
    let engine = open_hasty(dir.path()).unwrap();
    let file = fs::File::options().read(true).write(true).open(dir.path().join(FILE)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, flip.0 as u64).unwrap();
    file.write_all_at(&[byte[0] ^ flip.1], flip.0 as u64).unwrap();
    read_all(&engine, model, what).await
}

async fn read_all(engine: &Redb, model: &Model, what: &str) -> Fate {
    let mut fate = Fate::Harmless;
    let mut found = |error: Error| match error {
        Error::Corrupt { .. } => fate = Fate::FoundAtRead,
        error => panic!("{what}: {error:?}"),
    };
    for (key, record) in &model.records {
        match engine.get(key).await {
            Ok(read) => assert_eq!(read.as_ref(), Some(record), "{what}"),
            Err(error) => found(error),
        }
    }
    match engine.list("", None, 1000).await {
        Ok(page) => assert!(page.records.iter().eq(model.records.values()), "{what}: another list"),
        Err(error) => found(error),
    }
    match engine.get("never written").await {
        Ok(read) => assert_eq!(read, None, "{what}"),
        Err(error) => found(error),
    }
    for after in [15, 70, 119] {
        match engine.changes(after, 1000).await {
            Ok(read) => assert_eq!(read, model.changes[after as usize - 15..], "{what}"),
            Err(error) => found(error),
        }
    }
    match engine.floor().await {
        Ok(floor) => assert_eq!(floor, 15, "{what}"),
        Err(error) => found(error),
    }
    // And a write on top: applied and readable, or refused.
    match put(engine, "after", "the damage").await {
        Ok(rev) => {
            assert_eq!(rev, 121, "{what}");
            match value(engine, "after").await {
                Ok(read) => assert_eq!(read.as_deref(), Some("the damage"), "{what}"),
                Err(error) => found(error),
            }
        }
        Err(error) => found(error),
    }
    fate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_found_or_harmless() {
    let (model, closed, crashed, mark) = store().await;
    let seed = u64::from(std::process::id()) ^ 0x5bd1_e995;
    let mut random = Random(seed);
    let mut fates: BTreeMap<(When, Fate), usize> = BTreeMap::new();
    for flip in 0..FLIPS {
        let when = [When::Closed, When::Crashed, When::Running][flip % 3];
        // Every eighth in the first blocks: label, header and sums.
        let end = if flip % 8 == 0 { 3 * 4096 } else { closed.len().min(crashed.len()) as u64 };
        let (at, bit) = (random.below(end) as usize, 1 << random.below(8));
        let flipped = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= bit;
            bytes
        };
        let what = format!("seed {seed}, flip {flip}: {bit:#x} of byte {at}, {when:?}");
        let fate = match when {
            When::Closed => try_out(&flipped(&closed), Some(&mark), &model, &what).await,
            When::Crashed => try_out(&flipped(&crashed), None, &model, &what).await,
            When::Running => try_out_running(&closed, &mark, (at, bit), &model, &what).await,
        };
        *fates.entry((when, fate)).or_default() += 1;
    }
    println!("{fates:?}");
    let count = |when, fate| fates.get(&(when, fate)).copied().unwrap_or(0);
    assert!(count(When::Closed, Fate::RefusedAtStart) > 0, "{fates:?}");
    assert!(count(When::Crashed, Fate::RefusedAtStart) > 0, "{fates:?}");
    assert_eq!(count(When::Crashed, Fate::FoundAtRead), 0, "after a crash all of it is looked at first: {fates:?}");
    assert!(count(When::Running, Fate::FoundAtRead) > 0, "{fates:?}");
}

/// What no checksum of a record can find: its key is another one, or the way to it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_never_hides_a_record() {
    let (model, closed, _, mark) = store().await;
    let mut random = Random(3);
    let places: Vec<usize> = (0..closed.len() - 8).filter(|at| closed[*at..].starts_with(b"task/")).collect();
    assert!(places.len() > 200, "{}", places.len());
    let mut found = 0;
    for round in 0..150 {
        let at = places[random.below(places.len() as u64) as usize] + random.below(8) as usize;
        let (bit, what) = (1 << random.below(8), format!("round {round}: byte {at}"));
        let fate = if round % 3 == 0 {
            let mut bytes = closed.clone();
            bytes[at] ^= bit;
            try_out(&bytes, Some(&mark), &model, &what).await
        } else {
            try_out_running(&closed, &mark, (at, bit), &model, &what).await
        };
        found += usize::from(fate != Fate::Harmless);
    }
    assert!(found > 20, "{found}");
}

/// Among them the bit that says which of redb's two roots is the newer one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_of_the_header_is_found() {
    let (model, closed, crashed, mark) = store().await;
    for at in (0..16).chain((512..1024).step_by(3)).chain(520..524) {
        for bit in [1, 4, 128] {
            for (bytes, mark) in [(&closed, Some(mark.as_str())), (&crashed, None)] {
                let mut bytes = bytes.clone();
                bytes[at] ^= bit;
                let fate = try_out(&bytes, mark, &model, &format!("{bit:#x} of byte {at}")).await;
                assert_eq!(fate, Fate::RefusedAtStart, "{bit:#x} of byte {at}");
            }
        }
    }
}

/// When the bit flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    Closed,
    Crashed,
    Running,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_end_is_found_or_harmless() {
    let (model, closed, crashed, mark) = store().await;
    let seed = u64::from(std::process::id()) ^ 0xc2b2_ae35;
    let mut random = Random(seed);
    let mut fates: BTreeMap<Fate, usize> = BTreeMap::new();
    let mut lengths: Vec<u64> = vec![0, 1, 9, 511, 512, 4095, 4096, 8192, 12288];
    lengths.extend((1..6).map(|blocks| closed.len() as u64 - blocks * 4096));
    while lengths.len() < CUTS {
        let anywhere = random.below(closed.len() as u64);
        lengths.push(if lengths.len().is_multiple_of(2) { anywhere } else { anywhere / 4096 * 4096 });
    }
    for length in lengths {
        for (bytes, mark) in [(&closed, Some(mark.as_str())), (&crashed, None)] {
            let what = format!("seed {seed}: cut to {length} of {}, mark {mark:?}", bytes.len());
            let cut = &bytes[..bytes.len().min(length as usize)];
            *fates.entry(try_out(cut, mark, &model, &what).await).or_default() += 1;
            // The same with the length repaired: zeros are not what was there.
            let mut filled = cut.to_vec();
            filled.resize(bytes.len(), 0);
            *fates.entry(try_out(&filled, mark, &model, &format!("{what}, filled")).await).or_default() += 1;
        }
    }
    println!("{fates:?}");
    assert!(fates.get(&Fate::RefusedAtStart).is_some_and(|count| *count > CUTS), "{fates:?}");
}

#[tokio::test]
async fn a_damaged_record_is_refused_and_the_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_hasty(dir.path()).unwrap();
    for n in 0..40 {
        put(&engine, &format!("k{n:02}"), &format!("<{n:02}>").repeat(1000)).await.unwrap();
    }
    let path = dir.path().join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    // In the records and in the log.
    let wanted = b"<07><07><07>";
    let places: Vec<usize> = (0..bytes.len() - wanted.len()).filter(|at| bytes[*at..].starts_with(wanted)).collect();
    places.iter().step_by(100).for_each(|at| bytes[*at] = b'!');
    fs::write(&path, bytes).unwrap();
    for _ in 0..2 {
        match engine.get("k07").await {
            Err(Error::Corrupt { path: named, .. }) => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
        assert_eq!(value(&engine, "k39").await.unwrap(), Some("<39>".repeat(1000)));
    }
    assert!(matches!(engine.changes(0, 100).await, Err(Error::Corrupt { .. })));
    assert_eq!(engine.changes(30, 100).await.unwrap().len(), 10);
    put(&engine, "new", "x").await.unwrap();
    assert_eq!(value(&engine, "new").await.unwrap().as_deref(), Some("x"));
}
