//! Random batches do on the disk what they do in a map.

use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

use super::*;
use crate::{ChangeItem, Guard, Op};

#[derive(Clone, Debug)]
enum Step {
    Group(Vec<Batch>),
    Trim(Rev),
    Reopen,
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![Just(""), Just("a/"), Just("b/")]
        .prop_flat_map(|prefix| (0..6u8).prop_map(move |n| format!("{prefix}k{n}")))
}

fn batch() -> impl Strategy<Value = Batch> {
    let guard =
        prop_oneof![key().prop_map(Guard::Absent), (key(), 1..30u64).prop_map(|(key, rev)| Guard::At(key, rev)),];
    let value = prop_oneof![9 => 0..40usize, 1 => 3000..9000usize]
        .prop_flat_map(|length| any::<u8>().prop_map(move |byte| Bytes::from(vec![byte; length])));
    let op = prop_oneof![
        3 => (key(), value).prop_map(|(key, value)| Op::Put(key, value)),
        1 => key().prop_map(Op::Delete),
    ];
    (prop::collection::vec(guard, 0..2), prop::collection::vec(op, 0..5))
        .prop_map(|(guards, ops)| Batch { guards, ops })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(batch(), 1..6).prop_map(Step::Group),
        1 => (0..20u64).prop_map(Step::Trim),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    records: BTreeMap<String, Record>,
    log: Vec<Change>,
    head: Rev,
    floor: Rev,
}

impl Model {
    fn apply(&mut self, batch: &Batch) -> Result<Rev, Conflict> {
        for guard in &batch.guards {
            let (key, wanted) = match guard {
                Guard::Absent(key) => (key, None),
                Guard::At(key, rev) => (key, Some(*rev)),
            };
            let actual = self.records.get(key).map(|record| record.modified);
            if actual != wanted {
                return Err(Conflict { key: key.clone(), actual });
            }
        }
        self.head += 1;
        let (rev, mut items) = (self.head, Vec::new());
        for op in &batch.ops {
            match op {
                Op::Put(key, value) => {
                    let created = self.records.get(key).map(|record| record.created);
                    let record = Record {
                        key: key.clone(),
                        value: value.clone(),
                        created: created.unwrap_or(rev),
                        modified: rev,
                    };
                    self.records.insert(key.clone(), record);
                    items.push(ChangeItem { key: key.clone(), value: Some(value.clone()), created: created.is_none() });
                }
                Op::Delete(key) => {
                    if self.records.remove(key).is_some() {
                        items.push(ChangeItem { key: key.clone(), value: None, created: false });
                    }
                }
            }
        }
        self.log.push(Change { rev, items });
        Ok(rev)
    }
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let held = DataDir::open(dir.path()).unwrap();
    let mut engine = Redb::open(config(held.clone())).unwrap();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Group(batches) => {
                let wanted: Vec<_> = batches.iter().map(|batch| model.apply(batch)).collect();
                assert_eq!(engine.commit_many(batches).await.unwrap(), wanted);
            }
            Step::Trim(upto) => {
                engine.trim(upto).await.unwrap();
                model.floor = model.floor.max(upto.min(model.head));
            }
            Step::Reopen => {
                engine.close().await.unwrap();
                drop(engine);
                engine = Redb::open(config(held.clone())).unwrap();
            }
        }
        let page = engine.list("", None, 1000).await.unwrap();
        assert_eq!((page.rev, *engine.head().borrow()), (model.head, model.head));
        assert_eq!(page.records, model.records.values().cloned().collect::<Vec<_>>());
        let under: Vec<Record> =
            model.records.values().filter(|record| record.key.starts_with("a/")).cloned().collect();
        assert_eq!(engine.list("a/", None, 1000).await.unwrap().records, under);
        assert_eq!(engine.floor().await.unwrap(), model.floor);
        assert_eq!(engine.changes(model.floor, 1000).await.unwrap(), model.log[model.floor as usize..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn batches_do_on_the_disk_what_they_do_in_a_map(steps in prop::collection::vec(step(), 1..14)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
