//! Compaction keeps everything, whenever it is cut short.

use super::*;

async fn everything(engine: &Redb) -> (Vec<Record>, Vec<Change>) {
    let floor = engine.floor().await.unwrap();
    (
        engine.list("", None, usize::MAX).await.unwrap().records,
        engine.changes(floor, usize::MAX).await.unwrap(),
    )
}

#[tokio::test]
async fn zz_experiment() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    let mut random = Random(1);
    let keys = 10_000u64;
    let value = |n: u64| format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(300));
    let mut n = 0u64;
    for round in 0..200 {
        let batches = (0..256).map(|_| { n += 1; let k = if n <= keys { n } else { random.below(keys) }; Batch::new().put(format!("task/{k:08}"), value(n)) }).collect();
        engine.commit_many(batches).await.unwrap();
        let head = *engine.head().borrow();
        if head > 20_000 { engine.trim(head - 20_000).await.unwrap(); }
        if round % 20 == 19 {
            let len = std::fs::metadata(dir.path().join(FILE)).unwrap().len();
            println!("round {round} head {head} file {len}");
        }
    }
    let (records, changes) = everything(&engine).await;
    let live: usize = records.iter().map(|r| r.key.len() + r.value.len() + 32).sum::<usize>()
        + changes.iter().flat_map(|c| &c.items).map(|i| i.key.len() + i.value.as_ref().map_or(0, |v| v.len()) + 40).sum::<usize>();
    engine.close().await.unwrap();
    drop(engine);
    super::start::wait_until_free(dir.path());
    println!("live {live}");
    println!("{:?}", compact(dir.path()).unwrap());
}
