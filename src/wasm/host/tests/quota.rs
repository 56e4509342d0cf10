//! What the ledger says is what lies on the disk, whatever a guest did and however it ended.

use cap_std::{ambient_authority, fs::Dir};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use super::*;
use crate::host::{
    descriptor::{What, rights},
    files::{Grant, Quota, Tree},
};

const BYTES: u64 = 3000;
const ENTRIES: u64 = 6;

/// What a guest may do. Files, names and descriptors are numbers into small sets.
#[derive(Clone, Debug)]
enum Act {
    Open {
        name: usize,
        flags: u64,
        append: bool,
        follow: bool,
    },
    Write {
        fd: u64,
        length: u32,
    },
    WriteAt {
        fd: u64,
        place: u64,
        length: u32,
    },
    SetSize {
        fd: u64,
        size: u64,
    },
    Allocate {
        fd: u64,
        place: u64,
        length: u64,
    },
    Seek {
        fd: u64,
        place: u64,
    },
    Close {
        fd: u64,
    },
    Renumber {
        from: u64,
        to: u64,
    },
    OnPath {
        function: usize,
        name: usize,
    },
    Rename {
        from: usize,
        to: usize,
    },
    Link {
        from: usize,
        to: usize,
    },
    Symlink {
        from: usize,
        to: usize,
    },
    /// The process is gone at once, with all that it had open.
    Crash,
}

const NAMES: [&str; 12] = ["a", "b", "c", "d", "d/a", "d/b", "e", "e/", "d/../a", "./b", "nowhere/a", "../out"];
const ON_PATH: [&str; 3] = ["path_create_directory", "path_remove_directory", "path_unlink_file"];

fn act() -> impl Strategy<Value = Act> {
    let (name, fd) = (|| 0..NAMES.len(), || 3u64..10);
    let amount = || prop_oneof![0u64..100, 900u64..1100, 2900u64..3100, Just(u64::MAX), Just(1 << 40)];
    let length = || prop_oneof![Just(0u32), 1u32..50, 1000u32..4000];
    prop_oneof![
        6 => (name(), 0u64..16, any::<bool>(), any::<bool>())
            .prop_map(|(name, flags, append, follow)| Act::Open { name, flags, append, follow }),
        6 => (fd(), length()).prop_map(|(fd, length)| Act::Write { fd, length }),
        3 => (fd(), amount(), length()).prop_map(|(fd, place, length)| Act::WriteAt { fd, place, length }),
        3 => (fd(), amount()).prop_map(|(fd, size)| Act::SetSize { fd, size }),
        2 => (fd(), amount(), amount()).prop_map(|(fd, place, length)| Act::Allocate { fd, place, length }),
        1 => (fd(), amount()).prop_map(|(fd, place)| Act::Seek { fd, place }),
        3 => fd().prop_map(|fd| Act::Close { fd }),
        1 => (fd(), fd()).prop_map(|(from, to)| Act::Renumber { from, to }),
        6 => (0..ON_PATH.len(), name()).prop_map(|(function, name)| Act::OnPath { function, name }),
        3 => (name(), name()).prop_map(|(from, to)| Act::Rename { from, to }),
        3 => (name(), name()).prop_map(|(from, to)| Act::Link { from, to }),
        2 => (name(), name()).prop_map(|(from, to)| Act::Symlink { from, to }),
        1 => Just(Act::Crash),
    ]
}

struct Guest {
    bench: Bench,
    tree: Arc<Tree>,
}

impl Guest {
    fn new(dir: &Path) -> Self {
        let granted = Dir::open_ambient_dir(dir, ambient_authority()).unwrap();
        let tree = Tree { writable: true, quota: Some(Quota::new(BYTES, ENTRIES)) };
        let mut bench = Bench::new(|start| start.grants = vec![Grant { name: "/".to_owned(), dir: granted, tree }]);
        let What::Directory(open) = &bench.process().descriptor(3).unwrap().what else { unreachable!() };
        let tree = open.tree.clone();
        Self { bench, tree }
    }

    fn path(&self, at: u32, name: usize) -> [u64; 2] {
        self.bench.write(at, NAMES[name].as_bytes());
        [u64::from(at), NAMES[name].len() as u64]
    }

    /// Its errno; there is none whose meaning matters here.
    fn act(&mut self, act: &Act) -> u32 {
        let ((old, new), out) = ((1000, 2000), 3000);
        let mut call = |name: &str, args: &[u64]| self.bench.call(name, args).unwrap();
        match *act {
            Act::Open { name, flags, append, follow } => {
                let [at, length] = self.path(old, name);
                let args =
                    [3, u64::from(follow), at, length, flags, rights::FILE, rights::FILE, u64::from(append), out];
                self.bench.call("path_open", &args).unwrap()
            }
            Act::Write { fd, length } => {
                self.bench.vector(0, 10_000, length);
                self.bench.call("fd_write", &[fd, 0, 1, out]).unwrap()
            }
            Act::WriteAt { fd, place, length } => {
                self.bench.vector(0, 10_000, length);
                self.bench.call("fd_pwrite", &[fd, 0, 1, place, out]).unwrap()
            }
            Act::SetSize { fd, size } => call("fd_filestat_set_size", &[fd, size]),
            Act::Allocate { fd, place, length } => call("fd_allocate", &[fd, place, length]),
            Act::Seek { fd, place } => call("fd_seek", &[fd, place, 0, out]),
            Act::Close { fd } => call("fd_close", &[fd]),
            Act::Renumber { from, to } => call("fd_renumber", &[from, to]),
            Act::OnPath { function, name } => {
                let [at, length] = self.path(old, name);
                self.bench.call(ON_PATH[function], &[3, at, length]).unwrap()
            }
            Act::Rename { from, to } => {
                let ([old, old_length], [new, new_length]) = (self.path(old, from), self.path(new, to));
                self.bench.call("path_rename", &[3, old, old_length, 3, new, new_length]).unwrap()
            }
            Act::Link { from, to } => {
                let ([old, old_length], [new, new_length]) = (self.path(old, from), self.path(new, to));
                self.bench.call("path_link", &[3, 0, old, old_length, 3, new, new_length]).unwrap()
            }
            Act::Symlink { from, to } => {
                let ([old, old_length], [new, new_length]) = (self.path(old, from), self.path(new, to));
                self.bench.call("path_symlink", &[old, old_length, 3, new, new_length]).unwrap()
            }
            Act::Crash => unreachable!(),
        }
    }

    /// Lengths of the files that it has open, by inode.
    fn open(&mut self) -> BTreeMap<u64, u64> {
        let process = self.bench.process();
        let mut files = BTreeMap::new();
        for fd in 0..64 {
            if let Ok(descriptor) = process.descriptor(fd)
                && let What::File(file) = &descriptor.what
            {
                use cap_std::fs::MetadataExt as _;
                let metadata = file.metadata().unwrap();
                files.insert(metadata.ino(), metadata.len());
            }
        }
        files
    }
}

/// Bytes and names below a directory; each file once, with those that are open.
fn used(dir: &Path, open: BTreeMap<u64, u64>) -> (u64, u64) {
    let (mut files, mut entries, mut todo) = (open, 0, vec![dir.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            entries += 1;
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                todo.push(entry.path());
            } else if metadata.is_file() {
                files.insert(metadata.ino(), metadata.len());
            }
        }
    }
    (files.values().sum(), entries)
}

fn left(tree: &Tree) -> (u64, u64) {
    tree.quota.as_ref().unwrap().ledger().left()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_says_what_is_on_the_disk(acts in proptest::collection::vec(act(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let mut guest = Guest::new(dir.path());
        for act in acts {
            if matches!(act, Act::Crash) {
                let Guest { bench, tree } = guest;
                drop(bench);
                let (bytes, entries) = used(dir.path(), BTreeMap::new());
                prop_assert_eq!(left(&tree), (BYTES - bytes, ENTRIES - entries), "after a crash");
                return Ok(());
            }
            let errno = guest.act(&act);
            let open = guest.open();
            let (bytes, entries) = used(dir.path(), open);
            prop_assert!(bytes <= BYTES && entries <= ENTRIES, "{:?}", act);
            prop_assert_eq!(left(&guest.tree), (BYTES - bytes, ENTRIES - entries), "{:?} answered {}", act, errno);
        }
    }
}

#[test]
fn a_file_without_a_name_counts_until_it_is_closed_by_all_who_have_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(dir.path());
    let open = Act::Open { name: 0, flags: 1, append: false, follow: false };
    assert_eq!((guest.act(&open), guest.act(&open)), (0, 0));
    assert_eq!(guest.act(&Act::Write { fd: 4, length: 1000 }), 0);
    assert_eq!(guest.act(&Act::OnPath { function: 2, name: 0 }), 0);
    assert_eq!(left(&guest.tree), (BYTES - 1000, ENTRIES));
    assert_eq!(guest.act(&Act::Close { fd: 4 }), 0);
    assert_eq!(left(&guest.tree), (BYTES - 1000, ENTRIES));
    assert_eq!(guest.act(&Act::Renumber { from: 3, to: 5 }), 0);
    assert_eq!(left(&guest.tree), (BYTES, ENTRIES), "what is put in its place closes it");
}

#[test]
fn a_dangling_link_is_followed_to_a_file_that_is_made_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    symlink("b", dir.path().join("a")).unwrap();
    let mut guest = Guest::new(dir.path());
    let open = |follow| Act::Open { name: 0, flags: 1, append: false, follow };
    assert_eq!(guest.act(&open(false)), Errno::Loop as u32);
    assert_eq!(guest.act(&open(true)), 0);
    assert!(dir.path().join("b").exists());
    assert_eq!(left(&guest.tree).1, ENTRIES - 1);
}

#[test]
fn bytes_cannot_move_out_of_their_account() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("file"), "").unwrap();
    }
    let grant = |name: &str, quota| {
        let dir = Dir::open_ambient_dir(dir.path().join(name), ambient_authority()).unwrap();
        Grant { name: format!("/{name}"), dir, tree: Tree { writable: true, quota } }
    };
    let grants = vec![grant("one", Some(Quota::new(BYTES, ENTRIES))), grant("two", None)];
    let mut bench = Bench::new(|start| start.grants = grants);
    bench.write(100, b"fileother");
    for (from, to) in [(3, 4), (4, 3)] {
        let xdev = Ok(Errno::Xdev as u32);
        assert_eq!(bench.call("path_rename", &[from, 100, 4, to, 104, 5]), xdev);
        assert_eq!(bench.call("path_link", &[from, 0, 100, 4, to, 104, 5]), xdev);
    }
    assert_eq!(bench.call("path_link", &[4, 0, 100, 4, 4, 104, 5]), Ok(0));
}
