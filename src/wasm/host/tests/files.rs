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
    let perm = Errno::Perm as u32;
    let fd = bench.open("file", 0, rights::FD_READ).unwrap();
    assert_eq!(bench.take(fd, 10), b"text");
    assert_eq!(bench.put(fd, b"x"), Err(BADF));
    for (name, args) in [
        ("fd_filestat_set_size", &[fd, 0][..]),
        ("fd_allocate", &[fd, 0, 100]),
        ("fd_filestat_set_times", &[fd, 0, 0, 5]),
        ("fd_filestat_set_times", &[FIRST, 0, 0, 5]),
    ] {
        assert_eq!(bench.call(name, args), Ok(perm), "{name}");
    }
    for name in ["path_unlink_file", "path_create_directory", "path_remove_directory"] {
        assert_eq!(bench.on_path(name, "file"), perm, "{name}");
    }
    let ([old, old_length], [new, new_length]) = (bench.path(PATH, "file"), bench.path(PATH_2, "new"));
    for (name, args) in [
        ("path_rename", &[FIRST, old, old_length, FIRST, new, new_length][..]),
        ("path_link", &[FIRST, 0, old, old_length, FIRST, new, new_length]),
        ("path_symlink", &[old, old_length, FIRST, new, new_length]),
        ("path_filestat_set_times", &[FIRST, 0, old, old_length, 0, 0, 5]),
    ] {
        assert_eq!(bench.call(name, args), Ok(perm), "{name}");
    }
    for (path, flags, base) in [("new", CREATE, 0), ("file", TRUNCATE, 0), ("file", 0, BOTH), ("file", CREATE, 0)] {
        assert_eq!(bench.open(path, flags, base), Err(perm), "{path} {flags}");
    }
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"text");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
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
fn names_are_read_from_a_cookie_on_and_cut_at_the_end_of_the_buffer() {
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
    assert_eq!(names[..2], [".", ".."]);
    names.sort();
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
    let notcapable = Errno::Notcapable as u32;
    let sub = bench.open("sub", DIRECTORY, 0).unwrap();
    assert_eq!(bench.call("fd_fdstat_get", &[sub, u64::from(OUT)]), Ok(0));
    assert_eq!((bench.read::<1>(OUT)[0], bench.u64(OUT + 8)), (3, rights::DIRECTORY));
    let create = |bench: &mut Bench| {
        let [at, length] = bench.path(PATH, "x");
        bench.call("path_open", &[sub, 0, at, length, CREATE, BOTH, 0, 0, u64::from(OUT)])
    };
    let inheriting = rights::FD_READ | rights::FD_SEEK;
    assert_eq!(bench.call("fd_fdstat_set_rights", &[sub, rights::PATH_OPEN, rights::FD_READ]), Ok(0));
    assert_eq!(create(&mut bench), Ok(notcapable), "it may not make files");
    assert_eq!(bench.call("fd_fdstat_set_rights", &[sub, rights::PATH_OPEN, inheriting]), Ok(notcapable));
    fs::write(dir.path().join("sub/x"), "text").unwrap();
    let [at, length] = bench.path(PATH, "x");
    let mut open = |base| bench.call("path_open", &[sub, 0, at, length, 0, base, 0, 0, u64::from(OUT)]);
    assert_eq!(open(BOTH), Ok(notcapable), "what is asked for is given, or nothing");
    assert_eq!(open(rights::FD_READ), Ok(0));
    let fd = u64::from(bench.u32(OUT));
    assert_eq!(bench.take(fd, 10), b"text");
    assert_eq!(bench.call("fd_tell", &[fd, u64::from(OUT)]), Ok(notcapable), "not handed down");
}

#[test]
fn what_was_not_asked_for_by_reading_or_writing_is_there_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = granted(dir.path(), true, None);
    let fd = bench.open("file", CREATE, rights::FD_WRITE).unwrap();
    assert_eq!(bench.put(fd, b"12345"), Ok(5));
    assert_eq!(bench.call("fd_seek", &[fd, 0, 0, u64::from(OUT)]), Ok(0));
    assert_eq!(bench.call("fd_filestat_set_size", &[fd, 3]), Ok(0));
    for name in ["fd_sync", "fd_datasync"] {
        assert_eq!(bench.call(name, &[fd]), Ok(0));
        assert_eq!(bench.call(name, &[FIRST]), Ok(0), "names are put on the disk as well");
    }
    bench.vector(8, DATA, 10);
    assert_eq!(bench.call("fd_read", &[fd, 8, 1, u64::from(OUT)]), Ok(BADF), "it was opened for writing");
    let made = bench.open("other", CREATE, 0).unwrap();
    assert_eq!(bench.put(made, b"x"), Err(BADF), "made, but not to be written");
    assert_eq!(bench.take(made, 10), b"");
}

#[test]
fn whatever_is_appended_goes_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "one").unwrap();
    let mut bench = granted(dir.path(), true, None);
    let [at, length] = bench.path(PATH, "file");
    let append = 1;
    let args = [FIRST, 0, at, length, 0, BOTH, 0, append, u64::from(OUT)];
    assert_eq!(bench.call("path_open", &args), Ok(0));
    let fd = u64::from(bench.u32(OUT));
    assert_eq!(bench.put(fd, b" two"), Ok(4));
    bench.vector(8, DATA, 4);
    assert_eq!(bench.call("fd_pwrite", &[fd, 8, 1, 0, u64::from(OUT)]), Ok(0));
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"one two two");
    assert_eq!(bench.call("fd_tell", &[fd, u64::from(OUT)]), Ok(0));
    assert_eq!(bench.u64(OUT), 7, "behind what was written there");
    assert_eq!(bench.call("fd_fdstat_set_flags", &[fd, 0]), Ok(0));
    assert_eq!(bench.call("fd_seek", &[fd, 0, 0, u64::from(OUT)]), Ok(0));
    assert_eq!(bench.put(fd, b"ONE"), Ok(3));
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"ONE two two");
}

#[test]
fn a_file_opened_to_be_written_through_says_so_and_none_becomes_one_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = granted(dir.path(), true, None);
    let [at, length] = bench.path(PATH, "file");
    for flags in [2, 8, 16] {
        let args = [FIRST, 0, at, length, CREATE, BOTH, 0, flags, u64::from(OUT)];
        assert_eq!(bench.call("path_open", &args), Ok(0));
        let fd = u64::from(bench.u32(OUT));
        assert_eq!(bench.call("fd_fdstat_get", &[fd, u64::from(OUT)]), Ok(0));
        assert_eq!(u64::from(bench.read::<4>(OUT)[2]), flags);
        assert_eq!(bench.put(fd, b"x"), Ok(1));
        assert_eq!(bench.call("fd_fdstat_set_flags", &[fd, flags | 1]), Ok(0), "it stays as it is");
    }
    let fd = bench.open("file", 0, BOTH).unwrap();
    assert_eq!(bench.call("fd_fdstat_set_flags", &[fd, 2]), Ok(INVAL));
    assert_eq!(bench.call("fd_fdstat_set_flags", &[FIRST, 0]), Ok(BADF), "a directory has none");
}

#[test]
fn a_long_read_or_write_is_done_in_one_call() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = granted(dir.path(), true, None);
    let fd = bench.open("file", CREATE, BOTH).unwrap();
    bench.write(DATA, &[7; 1000]);
    // The same bytes again and again: more than are copied at a time.
    for index in 0..400 {
        bench.vector(8 + 8 * index, DATA, 1000);
    }
    assert_eq!(bench.call("fd_write", &[fd, 8, 400, u64::from(OUT)]), Ok(0));
    assert_eq!((bench.u32(OUT), fs::metadata(dir.path().join("file")).unwrap().len()), (400_000, 400_000));
    assert_eq!(bench.call("fd_pread", &[fd, 8, 400, 0, u64::from(OUT)]), Ok(0));
    assert_eq!(bench.u32(OUT), 400_000);
    assert_eq!(bench.call("fd_pread", &[fd, 8, 400, 100, u64::from(OUT)]), Ok(0));
    assert_eq!(bench.u32(OUT), 399_900, "up to the end");
}

impl Bench {
    /// All names of a directory, read in pieces; `between` is called after each.
    fn names(&mut self, fd: u64, buffer: u64, mut between: impl FnMut(&[String])) -> Vec<String> {
        let (mut all, mut cookie) = (Vec::new(), 0);
        loop {
            assert_eq!(self.call("fd_readdir", &[fd, u64::from(DATA), buffer, cookie, u64::from(OUT)]), Ok(0));
            let used = self.u32(OUT) as usize;
            let bytes = self.read::<4096>(DATA);
            let (mut at, mut names) = (0, Vec::new());
            while used - at >= 24 {
                let length = u32::from_le_bytes(bytes[at + 16..at + 20].try_into().unwrap()) as usize;
                let Some(name) = bytes[..used].get(at + 24..at + 24 + length) else { break };
                names.push(String::from_utf8(name.to_vec()).unwrap());
                cookie = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
                at += 24 + length;
            }
            between(&names);
            all.extend(names);
            if (used as u64) < buffer {
                return all;
            }
        }
    }
}

#[test]
fn a_directory_can_be_emptied_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..500 {
        fs::write(dir.path().join(format!("file-{number}")), "").unwrap();
    }
    let mut bench = granted(dir.path(), true, None);
    let root = dir.path().to_owned();
    let mut names = bench.names(FIRST, 300, |names| {
        for name in names.iter().filter(|name| !name.starts_with('.')) {
            fs::remove_file(root.join(name)).unwrap();
        }
    });
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 502, "each once, none forgotten");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(bench.names(FIRST, 4096, |_| {}), [".", ".."], "from the beginning it is read anew");
}

#[test]
fn a_cookie_that_was_kept_leads_back_to_its_place() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..300 {
        fs::write(dir.path().join(format!("file-{number}")), "").unwrap();
    }
    let mut bench = granted(dir.path(), true, None);
    let mut read = |cookie: u64| {
        assert_eq!(bench.call("fd_readdir", &[FIRST, u64::from(DATA), 200, cookie, u64::from(OUT)]), Ok(0));
        (bench.u64(DATA), bench.u32(OUT), bench.read::<200>(DATA))
    };
    let (mut cookie, mut seen) = (0, Vec::new());
    for _ in 0..250 {
        let (next, _, bytes) = read(cookie);
        seen.push((cookie, bytes));
        cookie = next;
    }
    for (cookie, bytes) in seen.into_iter().rev() {
        assert_eq!(read(cookie).2, bytes);
    }
    assert_eq!(read(u64::MAX).1, 0, "nothing is behind a cookie that was never given");
}

#[test]
fn a_directory_that_was_removed_while_open_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = granted(dir.path(), true, None);
    assert_eq!(bench.on_path("path_create_directory", "sub"), 0);
    let fd = bench.open("sub", DIRECTORY, 0).unwrap();
    assert_eq!(bench.on_path("path_remove_directory", "sub"), 0);
    assert_eq!(bench.names(fd, 4096, |_| {}), [".", ".."]);
    let [at, length] = bench.path(PATH, "x");
    assert_eq!(bench.call("path_create_directory", &[fd, at, length]), Ok(Errno::Noent as u32));
}

#[test]
fn no_more_files_are_made_than_can_be_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = granted(dir.path(), true, None);
    for number in 0..60 {
        bench.open(&format!("file-{number}"), CREATE, BOTH).unwrap();
    }
    assert_eq!(bench.open("one-more", CREATE, BOTH), Err(Errno::Mfile as u32));
    assert!(!dir.path().join("one-more").exists(), "a file that could not be opened is not made either");
}

#[test]
fn times_are_set_where_the_path_leads_and_nowhere_above() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("inside");
    fs::create_dir_all(inside.join("sub")).unwrap();
    fs::write(inside.join("file"), "").unwrap();
    symlink("file", inside.join("link")).unwrap();
    symlink("..", inside.join("up")).unwrap();
    let modified = |path: &Path| fs::symlink_metadata(path).unwrap().mtime();
    let above = modified(dir.path());
    let mut bench = granted(&inside, true, None);
    let mut set = |path: &str, follow: u64, seconds: u64| {
        let [at, length] = bench.path(PATH, path);
        let times = seconds * 1_000_000_000;
        bench.call("path_filestat_set_times", &[FIRST, follow, at, length, times, times, 5]).unwrap()
    };
    let perm = Errno::Perm as u32;
    for path in ["..", "../", "sub/../..", "up/", "/", "../inside"] {
        assert_eq!(set(path, 0, 1), perm, "{path}");
        assert_eq!(set(path, 1, 1), perm, "{path} followed");
    }
    assert_eq!(set("up", 1, 1), perm);
    for (path, follow, seconds) in [("link", 0, 10), ("link", 1, 20), ("sub/..", 0, 30), ("sub/", 0, 40)] {
        assert_eq!(set(path, follow, seconds), 0, "{path}");
    }
    let of = |name: &str| modified(&inside.join(name));
    assert_eq!((of("link"), of("file"), of(""), of("sub")), (10, 20, 30, 40));
    assert_eq!(set("file/", 0, 1), Errno::Notdir as u32);
    assert_eq!(modified(dir.path()), above);
    assert_eq!(bench.call("fd_filestat_set_times", &[FIRST, 0, 50_000_000_000, 4]), Ok(0));
    assert_eq!(modified(&inside), 50, "of a granted directory itself");
}

proptest! {
    #[test]
    fn any_path_is_answered_and_leads_nowhere_else(path in "[./a-c\u{0}]{0,24}", flags in 0u64..16) {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir_all(inside.join("a/b")).unwrap();
        symlink("../..", inside.join("c")).unwrap();
        let mut bench = granted(&inside, true, Some(Quota::new(1000, 10)));
        if let Ok(fd) = bench.open(&path, flags, BOTH) {
            prop_assert_eq!(bench.call("fd_close", &[fd]), Ok(0));
        }
        for name in ["path_create_directory", "path_unlink_file", "path_remove_directory"] {
            bench.on_path(name, &path);
        }
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
