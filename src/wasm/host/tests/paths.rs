//! What every function of paths answers for every kind of path, in one table each.
//!
//! The answers are those of wasmtime 50, with one exception: a directory may be removed by a name with a slash behind
//! it, as it may everywhere else, and a link by such a name is no directory.

use cap_std::{ambient_authority, fs::Dir};
use std::{fs, os::unix::fs::symlink, path::Path};

use super::*;
use crate::host::{
    descriptor::rights,
    files::{Grant, Tree},
};

/// f and d/g are files, e is empty; the others are links.
fn tree(dir: &Path) {
    fs::create_dir_all(dir.join("d")).unwrap();
    fs::create_dir(dir.join("e")).unwrap();
    fs::write(dir.join("f"), "hello").unwrap();
    fs::write(dir.join("d/g"), "inner").unwrap();
    for (link, target) in [
        ("lf", "f"),
        ("ld", "d"),
        ("dang", "nope"),
        ("loop", "loop"),
        ("out", "../secret"),
        ("abs", "/etc/passwd"),
        ("up", ".."),
        ("lup", "d/.."),
    ] {
        symlink(target, dir.join(link)).unwrap();
    }
}

/// A fresh tree, with a secret beside it.
struct Place {
    dir: tempfile::TempDir,
    bench: Bench,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir(&inside).unwrap();
        tree(&inside);
        let granted = Dir::open_ambient_dir(inside, ambient_authority()).unwrap();
        let tree = Tree { writable: true, quota: None };
        let bench = Bench::new(|start| start.grants = vec![Grant { name: "/".to_owned(), dir: granted, tree }]);
        Self { dir, bench }
    }

    fn path(&self, at: u32, path: &[u8]) -> [u64; 2] {
        self.bench.write(at, path);
        [u64::from(at), path.len() as u64]
    }

    /// Nothing beside the tree was touched.
    fn intact(&self) -> bool {
        let names = fs::read_dir(self.dir.path()).unwrap().count();
        names == 2 && fs::read(self.dir.path().join("secret")).unwrap() == b"secret"
    }
}

/// The path that a row of a table is about.
fn path(word: &str) -> Vec<u8> {
    match word {
        "zero" => b"x\0".to_vec(),
        "bytes" => b"\xff\xfe".to_vec(),
        "long" => vec![b'a'; 256],
        "empty" => Vec::new(),
        path => path.as_bytes().to_vec(),
    }
}

fn word(errno: u32) -> String {
    let named = [
        (0, "ok"),
        (Errno::Nametoolong as u32, "toolong"),
        (Errno::Exist as u32, "exist"),
        (Errno::Notdir as u32, "notdir"),
        (Errno::Isdir as u32, "isdir"),
        (Errno::Inval as u32, "inval"),
        (Errno::Noent as u32, "noent"),
        (Errno::Notempty as u32, "notempty"),
        (Errno::Loop as u32, "loop"),
        (Errno::Perm as u32, "perm"),
        (Errno::Busy as u32, "busy"),
        (Errno::Ilseq as u32, "ilseq"),
    ];
    named.iter().find(|(known, _)| *known == errno).map_or_else(|| errno.to_string(), |(_, word)| (*word).to_owned())
}

/// Compares a table with what is answered, each cell in a fresh tree.
fn compare(table: &str, columns: usize, answer: impl Fn(&mut Place, usize, &[u8]) -> u32) {
    let mut wrong = Vec::new();
    for row in table.lines().filter(|row| !row.trim().is_empty()) {
        let mut words = row.split_whitespace();
        let name = words.next().unwrap();
        let expected: Vec<_> = words.collect();
        assert_eq!(expected.len(), columns, "{row}");
        for (column, expected) in expected.iter().enumerate() {
            let mut place = Place::new();
            let found = word(answer(&mut place, column, &path(name)));
            if found != *expected || !place.intact() {
                wrong.push(format!("{name} {column}: {found}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const OUT: u64 = 12_000;

/// Columns: mkdir, rmdir, unlink, readlink, stat, stat followed, utimes, utimes followed; a link to it from f, a symbolic
/// one; f renamed to it, d renamed to it.
const PATHS: &str = r"
    f           exist    notdir   ok       inval    ok       ok       ok       ok       exist    exist    ok       notdir
    f/          exist    notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir
    d           exist    notempty isdir    inval    ok       ok       ok       ok       exist    exist    isdir    ok
    d/          exist    notempty isdir    inval    ok       ok       ok       ok       exist    exist    notdir   ok
    e           exist    ok       isdir    inval    ok       ok       ok       ok       exist    exist    isdir    ok
    e/          exist    ok       isdir    inval    ok       ok       ok       ok       exist    exist    notdir   ok
    lf          exist    notdir   ok       ok       ok       ok       ok       ok       exist    exist    ok       notdir
    lf/         exist    notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir
    ld          exist    notdir   ok       ok       ok       ok       ok       ok       exist    exist    ok       notdir
    ld/         exist    notdir   isdir    inval    ok       ok       ok       ok       exist    exist    notdir   notdir
    dang        exist    notdir   ok       ok       ok       noent    ok       noent    exist    exist    ok       notdir
    dang/       exist    notdir   noent    noent    noent    noent    noent    noent    noent    noent    notdir   notdir
    loop        exist    notdir   ok       ok       ok       loop     ok       loop     exist    exist    ok       notdir
    loop/       exist    notdir   loop     loop     loop     loop     loop     loop     loop     loop     notdir   notdir
    out         exist    notdir   ok       ok       ok       perm     ok       perm     exist    exist    ok       notdir
    abs         exist    notdir   ok       perm     ok       perm     ok       perm     exist    exist    ok       notdir
    up          exist    notdir   ok       ok       ok       perm     ok       perm     exist    exist    ok       notdir
    up/secret   perm     perm     perm     perm     perm     perm     perm     perm     perm     perm     perm     perm
    lup/f       exist    notdir   ok       inval    ok       ok       ok       ok       exist    exist    ok       notdir
    new         ok       noent    noent    noent    noent    noent    noent    noent    ok       ok       ok       ok
    new/        ok       noent    noent    noent    noent    noent    noent    noent    noent    noent    notdir   ok
    nope/new    noent    noent    noent    noent    noent    noent    noent    noent    noent    noent    noent    noent
    .           exist    inval    isdir    inval    ok       ok       ok       ok       exist    exist    busy     busy
    ..          perm     perm     perm     perm     perm     perm     perm     perm     perm     perm     perm     perm
    ../secret   perm     perm     perm     perm     perm     perm     perm     perm     perm     perm     perm     perm
    d/..        exist    inval    isdir    inval    ok       ok       ok       ok       exist    exist    busy     busy
    d/../..     perm     perm     perm     perm     perm     perm     perm     perm     perm     perm     perm     perm
    /f          perm     perm     perm     perm     perm     perm     perm     perm     perm     perm     perm     perm
    empty       noent    noent    noent    noent    noent    noent    noent    noent    noent    noent    noent    noent
    f/x         notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir
    f/.         notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir
    zero        inval    inval    inval    inval    inval    inval    inval    inval    inval    inval    inval    inval
    bytes       ilseq    ilseq    ilseq    ilseq    ilseq    ilseq    ilseq    ilseq    ilseq    ilseq    ilseq    ilseq
    long        toolong  toolong  toolong  toolong  toolong  toolong  toolong  toolong  toolong  toolong  toolong  toolong 
    d/./g       exist    notdir   ok       inval    ok       ok       ok       ok       exist    exist    ok       inval
";

#[test]
fn every_path_is_answered_as_it_is_elsewhere() {
    compare(PATHS, 12, |place, column, path| {
        let [at, length] = place.path(100, path);
        let [f, d] = [place.path(6000, b"f"), place.path(6001, b"d")];
        let one = |name: &'static str| (name, vec![3, at, length]);
        let times = |follow| ("path_filestat_set_times", vec![3, follow, at, length, 1, 1, 5]);
        let rename = |from: [u64; 2]| ("path_rename", vec![3, from[0], from[1], 3, at, length]);
        let (name, args) = match column {
            0 => one("path_create_directory"),
            1 => one("path_remove_directory"),
            2 => one("path_unlink_file"),
            3 => ("path_readlink", vec![3, at, length, 7000, 100, OUT]),
            4 | 5 => ("path_filestat_get", vec![3, column as u64 - 4, at, length, OUT]),
            6 | 7 => times(column as u64 - 6),
            8 => ("path_link", vec![3, 0, f[0], f[1], 3, at, length]),
            9 => ("path_symlink", vec![f[0], f[1], 3, at, length]),
            10 => rename(f),
            _ => rename(d),
        };
        place.bench.call(name, &args).unwrap()
    });
}

/// Columns: with no rights; to read, to write; created, to read; created, exclusively; truncated; a directory; a
/// directory to write; a directory, created.
const OPEN: &str = r"
    f           ok       ok       ok       ok       exist    ok       notdir   notdir   inval
    f/          notdir   notdir   notdir   isdir    isdir    notdir   notdir   notdir   inval
    d           ok       ok       isdir    isdir    exist    isdir    ok       isdir    inval
    d/          ok       ok       isdir    isdir    isdir    isdir    ok       isdir    inval
    e           ok       ok       isdir    isdir    exist    isdir    ok       isdir    inval
    e/          ok       ok       isdir    isdir    isdir    isdir    ok       isdir    inval
    lf          loop     ok       ok       ok       exist    ok       loop     notdir   inval
    lf/         notdir   notdir   notdir   isdir    isdir    notdir   notdir   notdir   inval
    ld          loop     ok       isdir    isdir    exist    isdir    loop     isdir    inval
    ld/         ok       ok       isdir    isdir    isdir    isdir    ok       isdir    inval
    dang        loop     noent    noent    ok       exist    noent    loop     noent    inval
    dang/       noent    noent    noent    isdir    isdir    noent    noent    noent    inval
    loop        loop     loop     loop     loop     exist    loop     loop     loop     inval
    loop/       loop     loop     loop     isdir    isdir    loop     loop     loop     inval
    out         loop     perm     perm     perm     exist    perm     loop     perm     inval
    abs         loop     perm     perm     perm     exist    perm     loop     perm     inval
    up          loop     perm     perm     perm     exist    perm     loop     perm     inval
    up/secret   perm     perm     perm     perm     perm     perm     perm     perm     inval
    lup/f       ok       ok       ok       ok       exist    ok       notdir   notdir   inval
    new         noent    noent    noent    ok       ok       noent    noent    noent    inval
    new/        noent    noent    noent    isdir    isdir    noent    noent    noent    inval
    nope/new    noent    noent    noent    noent    noent    noent    noent    noent    inval
    .           ok       ok       isdir    isdir    exist    isdir    ok       isdir    inval
    ..          perm     perm     perm     perm     perm     perm     perm     perm     inval
    ../secret   perm     perm     perm     perm     perm     perm     perm     perm     inval
    d/..        ok       ok       isdir    isdir    exist    isdir    ok       isdir    inval
    d/../..     perm     perm     perm     perm     perm     perm     perm     perm     inval
    /f          perm     perm     perm     perm     perm     perm     perm     perm     inval
    empty       noent    noent    noent    noent    noent    noent    noent    noent    inval
    f/x         notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   inval
    f/.         notdir   notdir   notdir   notdir   notdir   notdir   notdir   notdir   inval
    zero        inval    inval    inval    inval    inval    inval    inval    inval    inval
    bytes       ilseq    ilseq    ilseq    ilseq    ilseq    ilseq    ilseq    ilseq    ilseq
    long        toolong  toolong  toolong  toolong  toolong  toolong  toolong  toolong  inval
    d/./g       ok       ok       ok       ok       exist    ok       notdir   notdir   inval
";

#[test]
fn every_path_is_opened_as_it_is_elsewhere() {
    const COLUMNS: [(u64, u64, u64); 9] = [
        (0, 0, 0),
        (0, rights::FD_READ, 1),
        (0, rights::FD_WRITE, 1),
        (1, rights::FD_READ, 1),
        (5, rights::FD_WRITE, 0),
        (8, 0, 1),
        (2, 0, 0),
        (2, rights::FD_WRITE, 1),
        (3, 0, 0),
    ];
    compare(OPEN, COLUMNS.len(), |place, column, path| {
        let [at, length] = place.path(100, path);
        let (flags, base, follow) = COLUMNS[column];
        place.bench.call("path_open", &[3, follow, at, length, flags, base, 0, 0, OUT]).unwrap()
    });
}
