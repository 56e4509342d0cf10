//! Directories that are granted: what can be done in them, and that nothing leads out.

use cap_std::{ambient_authority, fs::Dir};
use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use super::*;
use crate::host::{
    descriptor::rights,
    files::{Grant, Quota, Tree},
};

const FIRST: u64 = 3;
const PATH: u32 = 1000;
const PATH_2: u32 = 6000;
const OUT: u32 = 12_000;
const DATA: u32 = 20_000;

fn granted(dir: &Path, writable: bool, quota: Option<Quota>) -> Bench {
    let dir = Dir::open_ambient_dir(dir, ambient_authority()).unwrap();
    let grant = Grant { name: "/data".to_owned(), dir, tree: Tree { writable, quota } };
    Bench::new(|start| start.grants = vec![grant])
}

impl Bench {
    fn path(&self, at: u32, path: &str) -> [u64; 2] {
        self.write(at, path.as_bytes());
        [u64::from(at), path.len() as u64]
    }

    fn open(&mut self, path: &str, flags: u64, base: u64) -> Result<u64, u32> {
        let [at, length] = self.path(PATH, path);
        let all = rights::FILE | rights::DIRECTORY;
        match self.call("path_open", &[FIRST, 0, at, length, flags, base, all, 0, u64::from(OUT)]).unwrap() {
            0 => Ok(self.u32(OUT).into()),
            errno => Err(errno),
        }
    }

    fn put(&mut self, fd: u64, bytes: &[u8]) -> Result<u32, u32> {
        self.write(DATA, bytes);
        self.vector(8, DATA, u32::try_from(bytes.len()).unwrap());
        match self.call("fd_write", &[fd, 8, 1, u64::from(OUT)]).unwrap() {
            0 => Ok(self.u32(OUT)),
            errno => Err(errno),
        }
    }

    fn take(&mut self, fd: u64, length: u32) -> Vec<u8> {
        self.vector(8, DATA, length);
        assert_eq!(self.call("fd_read", &[fd, 8, 1, u64::from(OUT)]), Ok(0));
        let read = self.u32(OUT) as usize;
        self.read::<4096>(DATA)[..read].to_vec()
    }

    fn on_path(&mut self, name: &str, path: &str) -> u32 {
        let [at, length] = self.path(PATH, path);
        self.call(name, &[FIRST, at, length]).unwrap()
    }
}

const CREATE: u64 = 1;
const DIRECTORY: u64 = 2;
const EXCLUSIVE: u64 = 4;
const TRUNCATE: u64 = 8;
const BOTH: u64 = rights::FILE;

#[test]
fn a_file_is_made_written_read_moved_in_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = granted(dir.path(), true, None);
    let fd = bench.open("file", CREATE | EXCLUSIVE, BOTH).unwrap();
    assert_eq!(bench.put(fd, b"hello"), Ok(5));
    assert_eq!(bench.call("fd_seek", &[fd, 1, 0, u64::from(OUT)]), Ok(0));
    assert_eq!(bench.take(fd, 100), b"ello");
    assert_eq!(bench.call("fd_tell", &[fd, u64::from(OUT)]), Ok(0));
    assert_eq!(bench.u64(OUT), 5);
    assert_eq!(bench.open("file", CREATE | EXCLUSIVE, BOTH), Err(Errno::Exist as u32));
    assert_eq!(bench.call("fd_close", &[fd]), Ok(0));
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"hello");
    bench.open("file", TRUNCATE, BOTH).unwrap();
    assert_eq!(fs::metadata(dir.path().join("file")).unwrap().len(), 0);
    assert_eq!(bench.on_path("path_unlink_file", "file"), 0);
    assert_eq!(bench.open("file", 0, BOTH), Err(Errno::Noent as u32));
}

#[test]
fn nothing_leads_out_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("inside");
    fs::create_dir(&inside).unwrap();
    fs::write(dir.path().join("secret"), "x").unwrap();
    symlink("../secret", inside.join("link")).unwrap();
    symlink(dir.path().join("secret"), inside.join("absolute")).unwrap();
    symlink("..", inside.join("up")).unwrap();
    let mut bench = granted(&inside, true, None);
    for path in ["../secret", "./../secret", "up/secret", "/etc/passwd", "a/../../secret", "..", "../inside/../secret"]
    {
        let refused = bench.open(path, 0, rights::FD_READ).unwrap_err();
        let expected = [Errno::Perm, Errno::Noent, Errno::Notcapable, Errno::Loop].map(|errno| errno as u32);
        assert!(expected.contains(&refused), "{path}: {refused}");
    }
    for link in ["link", "absolute"] {
        let [at, length] = bench.path(PATH, link);
        let answer = bench.call("path_open", &[FIRST, 1, at, length, 0, rights::FD_READ, 0, 0, u64::from(OUT)]);
        assert_ne!(answer, Ok(0), "{link} followed");
        assert_ne!(bench.on_path("path_create_directory", &format!("{link}/x")), 0);
    }
    let [target, target_length] = bench.path(PATH_2, "../stolen");
    let [at, length] = bench.path(PATH, "link");
    assert_ne!(bench.call("path_rename", &[FIRST, at, length, FIRST, target, target_length]), Ok(0));
    assert_ne!(bench.call("path_link", &[FIRST, 0, at, length, FIRST, target, target_length]), Ok(0));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing new beside it");
}

#[test]
fn in_a_tree_that_may_only_be_read_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "text").unwrap();
    let mut bench = granted(dir.path(), false, None);
    let fd = bench.open("file", 0, rights::FILE).unwrap();
    assert_eq!(bench.take(fd, 10), b"text");
    assert!(bench.put(fd, b"x").is_err());
    assert_ne!(bench.call("fd_filestat_set_size", &[fd, 0]), Ok(0));
    for name in ["path_unlink_file", "path_create_directory", "path_remove_directory"] {
        assert_eq!(bench.on_path(name, "file"), Errno::Notcapable as u32, "{name}");
    }
    assert!(bench.open("new", CREATE, BOTH).is_err() && bench.open("file", TRUNCATE, BOTH).is_err());
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"text");
}

#[test]
fn a_quota_bounds_bytes_and_entries_and_gets_back_what_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = granted(dir.path(), true, Some(Quota::new(100, 2)));
    let fd = bench.open("a", CREATE, BOTH).unwrap();
    assert_eq!(bench.put(fd, &[1; 60]), Ok(60));
    assert_eq!(bench.put(fd, &[1; 60]), Ok(40), "as much as there is room for");
    assert_eq!(bench.put(fd, &[1; 1]), Err(Errno::Nospc as u32));
    assert_eq!(bench.call("fd_filestat_set_size", &[fd, 1 << 40]), Ok(Errno::Nospc as u32));
    assert_eq!(bench.call("fd_allocate", &[fd, 0, 101]), Ok(Errno::Nospc as u32));
    assert_eq!(bench.call("fd_filestat_set_size", &[fd, 50]), Ok(0));
    assert_eq!(bench.on_path("path_create_directory", "d"), 0);
    assert_eq!(bench.on_path("path_create_directory", "e"), Errno::Nospc as u32);
    assert_eq!(bench.on_path("path_unlink_file", "a"), 0);
    let second = bench.open("b", CREATE, BOTH).unwrap();
    assert_eq!(bench.put(second, &[1; 100]), Ok(50), "what is open without a name still counts");
    assert_eq!(bench.call("fd_close", &[fd]), Ok(0));
    assert_eq!(bench.put(second, &[1; 100]), Ok(50));
    assert_eq!(bench.on_path("path_remove_directory", "d"), 0);
    assert_eq!(bench.on_path("path_create_directory", "e"), 0);
}

#[test]
fn names_are_read_in_order_from_a_cookie_on_and_cut_at_the_end_of_the_buffer() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b", "a", "long-name"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let mut bench = granted(dir.path(), true, None);
    let mut names = Vec::new();
    let mut cookie = 0;
    loop {
        // One entry and a part of the next.
        assert_eq!(bench.call("fd_readdir", &[FIRST, u64::from(DATA), 40, cookie, u64::from(OUT)]), Ok(0));
        let used = bench.u32(OUT) as usize;
        let bytes = bench.read::<40>(DATA);
        if used < 24 {
            break;
        }
        let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
        names.push(String::from_utf8(bytes[24..24 + length].to_vec()).unwrap());
        cookie = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    }
    assert_eq!(names, [".", "..", "a", "b", "long-name"]);
}

#[test]
fn what_a_file_is_is_told_in_both_layouts() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "12345").unwrap();
    let metadata = fs::metadata(dir.path().join("file")).unwrap();
    let mut bench = granted(dir.path(), true, None);
    let [at, length] = bench.path(PATH, "file");
    for (module, size_at) in MODULES.into_iter().zip([32, 24]) {
        assert_eq!(bench.call_in(module, "path_filestat_get", &[FIRST, 0, at, length, u64::from(OUT)]), Ok(0));
        assert_eq!((bench.u64(OUT + 8), bench.read::<1>(OUT + 16)[0]), (metadata.ino(), 4), "{module}");
        assert_eq!(bench.u64(OUT + size_at), 5, "{module}");
    }
}

#[test]
fn a_pipe_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let mut bench = granted(dir.path(), true, None);
    assert!(bench.open("pipe", 0, rights::FD_READ).is_err());
    assert!(bench.open("pipe", 0, rights::FD_WRITE).is_err());
}

#[test]
fn rights_are_handed_down_and_can_only_be_given_up() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let mut bench = granted(dir.path(), true, None);
    let sub = bench.open("sub", DIRECTORY, rights::PATH_OPEN).unwrap();
    assert_eq!(bench.call("fd_fdstat_get", &[sub, u64::from(OUT)]), Ok(0));
    assert_eq!((bench.read::<1>(OUT)[0], bench.u64(OUT + 8)), (3, rights::PATH_OPEN));
    let [at, length] = bench.path(PATH, "x");
    let answer = bench.call("path_open", &[sub, 0, at, length, CREATE, BOTH, 0, 0, u64::from(OUT)]);
    assert_eq!(answer, Ok(Errno::Notcapable as u32), "it may not make files");
    assert_eq!(bench.call("fd_fdstat_set_rights", &[sub, 0, 0]), Ok(0));
    assert_eq!(bench.call("fd_fdstat_set_rights", &[sub, rights::PATH_OPEN, 0]), Ok(Errno::Notcapable as u32));
    assert_eq!(bench.open("sub", DIRECTORY, rights::FD_WRITE), Err(Errno::Isdir as u32));
}

proptest! {
    #[test]
    fn any_path_is_answered_and_leads_nowhere_else(path in "[./a-c\u{0}]{0,24}", flags in 0u64..16) {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir_all(inside.join("a/b")).unwrap();
        symlink("../..", inside.join("c")).unwrap();
        let mut bench = granted(&inside, true, Some(Quota::new(1000, 10)));
        let _ = bench.open(&path, flags, BOTH);
        for name in ["path_create_directory", "path_unlink_file", "path_remove_directory"] {
            bench.on_path(name, &path);
        }
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
