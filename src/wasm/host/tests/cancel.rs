//! A call that waits or goes on for long ends when the guest is stopped.

use cap_std::{ambient_authority, fs::Dir};
use std::{fs, thread};

use super::*;
use crate::host::{
    descriptor::{What, rights},
    files::{Grant, Quota, Tree},
};
use types::Reason;

/// Stops the guest from another thread while `call` is under way, or just before.
fn stopped_during<T>(bench: &mut Bench, call: impl FnOnce(&mut Bench) -> T) -> T {
    let control = bench.control.clone();
    let stopper = thread::spawn(move || control.stop(Reason::Cancelled, "cancelled"));
    let answer = call(bench);
    stopper.join().unwrap();
    answer
}

#[test]
fn whatever_waits_for_ever_ends() {
    let input = |bench: &mut Bench| {
        bench.vector(0, 100, 10);
        bench.call("fd_read", &[0, 0, 1, 200])
    };
    let clocks = |bench: &mut Bench| {
        bench.write(0, &clock(false, 1, u64::MAX, 0));
        bench.write(48, &clock(false, 0, u64::MAX, 1));
        bench.call("poll_oneoff", &[0, 1000, 2, 2000])
    };
    let both = |bench: &mut Bench| {
        bench.write(0, &clock(false, 1, u64::MAX, 0));
        bench.write(56, &[1, 0, 0, 0, 0, 0, 0, 0, 0]);
        bench.call("poll_oneoff", &[0, 1000, 2, 2000])
    };
    for _ in 0..20 {
        for call in [input, clocks, both] {
            let mut bench = Bench::new(|_| {});
            assert_eq!(stopped_during(&mut bench, call), Err(End::Stopped));
        }
    }
}

/// With a file of its own, number 4, in a tree whose ledger the caller may hold.
fn with_file(dir: &std::path::Path) -> (Bench, Arc<Tree>) {
    let granted = Dir::open_ambient_dir(dir, ambient_authority()).unwrap();
    let tree = Tree { writable: true, quota: Some(Quota::new(1 << 40, 10)) };
    let mut bench = Bench::new(|start| start.grants = vec![Grant { name: "/".to_owned(), dir: granted, tree }]);
    bench.write(100, b"file");
    assert_eq!(bench.call("path_open", &[3, 0, 100, 4, 1, rights::FILE, 0, 0, 200]), Ok(0));
    let tree = match &bench.process().descriptor(3).unwrap().what {
        What::Directory(open) => open.tree.clone(),
        _ => unreachable!(),
    };
    (bench, tree)
}

#[test]
fn a_long_write_or_allocation_ends_at_its_next_piece() {
    let write = |bench: &mut Bench| {
        // As much as one call may ask for: the whole memory, again and again.
        for index in 0..1024 {
            bench.vector(1000 + 8 * index, 0, PAGE);
        }
        bench.call("fd_write", &[4, 1000, 1024, 200])
    };
    let allocate = |bench: &mut Bench| bench.call("fd_allocate", &[4, 0, 1 << 36]);
    for (call, most) in [(write as fn(&mut Bench) -> _, u64::from(PAGE)), (allocate, 64 << 20)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut bench, tree) = with_file(dir.path());
        let (control, held) = (bench.control.clone(), Arc::new(std::sync::Barrier::new(2)));
        let holds = held.clone();
        let stopper = thread::spawn(move || {
            let ledger = tree.quota.as_ref().unwrap().ledger();
            holds.wait();
            control.stop(Reason::Cancelled, "cancelled");
            drop(ledger);
        });
        held.wait();
        // It cannot do more than its first piece before the ledger is free, and then it was stopped.
        assert_eq!(call(&mut bench), Err(End::Stopped));
        stopper.join().unwrap();
        assert!(fs::metadata(dir.path().join("file")).unwrap().len() <= most);
    }
}

#[test]
fn a_directory_without_end_is_not_read_to_it() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..3000 {
        fs::write(dir.path().join(format!("{number:0>200}")), "").unwrap();
    }
    let (mut bench, _tree) = with_file(dir.path());
    let answer = bench.call("fd_readdir", &[3, 1000, 60_000, 0, 200]);
    assert_eq!((answer, bench.u32(200)), (Ok(0), 60_000), "as much as fits, whatever there is");
    let answer = stopped_during(&mut bench, |bench| {
        loop {
            match bench.call("fd_readdir", &[3, 1000, 60_000, 0, 200]) {
                Ok(0) => {}
                end => return end,
            }
        }
    });
    assert_eq!(answer, Err(End::Stopped));
}
