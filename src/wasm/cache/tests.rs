#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use super::*;
use crate::generate::cases;
use proptest::prelude::*;

const COMPILER: Compiler = Compiler::Singlepass;
const FACTS: Facts = Facts { puts_back: true };
const WAT: &str = r#"(module (func (export "_start") (loop (br 0))))"#;

struct Bench {
    dir: tempfile::TempDir,
    cache: Cache,
    source: Hashes,
    file: Vec<u8>,
}

/// Known by another hash than that of its bytes.
fn source(module: &[u8]) -> Hashes {
    Hashes { identity: blake3::hash(&[module, b"identity"].concat()), module: blake3::hash(module) }
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), u64::MAX).unwrap();
        let wasm = wat::parse_str(WAT).unwrap();
        let source = source(&wasm);
        let artifact = engine::compile(&wasm, COMPILER).unwrap();
        let mut file = header(&engine::settings(COMPILER), source, FACTS, &artifact);
        file.extend_from_slice(&artifact);
        Self { dir, cache, source, file }
    }

    /// Does the cache load this file? If not it must have removed it.
    fn loads(&self, file: &[u8]) -> bool {
        let path = self.cache.path(self.source.identity, COMPILER);
        fs::write(&path, file).unwrap();
        let loaded = self.cache.load(self.source.identity, COMPILER).is_some();
        assert_eq!(path.exists(), loaded, "an artifact that is not used is removed");
        loaded
    }
}

#[test]
fn a_whole_artifact_is_loaded_and_a_missing_one_is_not() {
    let bench = Bench::new();
    assert!(bench.loads(&bench.file));
    assert!(bench.cache.load(blake3::hash(b"another"), COMPILER).is_none());
}

#[test]
fn no_flipped_bit_is_ever_loaded() {
    let bench = Bench::new();
    let size = bench.file.len();
    // Every byte of the header, and 400 places in the code, each with another bit.
    let places = (0..512).chain((0..400).map(|index| index * (size - 1) / 399));
    for (round, place) in places.enumerate() {
        let mut file = bench.file.clone();
        file[place] ^= 1 << (round % 8);
        assert!(!bench.loads(&file), "byte {place} of {size} was flipped and loaded all the same");
    }
    assert!(bench.loads(&bench.file), "the untouched one still loads");
}

#[test]
fn a_truncated_or_longer_artifact_is_not_loaded() {
    let bench = Bench::new();
    let size = bench.file.len();
    for length in (0..300).chain((0..50).map(|index| index * size / 50)).chain([size - 1]) {
        assert!(!bench.loads(&bench.file[..length]), "{length} of {size} bytes were loaded");
    }
    let mut longer = bench.file.clone();
    longer.push(0);
    assert!(!bench.loads(&longer));
}

#[test]
fn artifacts_of_another_version_machine_or_module_are_not_loaded() {
    let bench = Bench::new();
    let settings = engine::settings(COMPILER);
    let artifact = &bench.file[header(&settings, bench.source, FACTS, &[]).len()..];
    let made = |settings: &str, source| [header(settings, source, FACTS, artifact).as_slice(), artifact].concat();
    assert!(bench.loads(&made(&settings, bench.source)), "the way they are made here is right");
    let older = settings.replace(engine::version(), "7.4.1");
    assert_ne!(older, settings);
    assert!(!bench.loads(&made(&older, bench.source)), "another version of wasmer");
    let other = settings.replace("cpu=", "cpu=AVX9000+");
    assert!(!bench.loads(&made(&other, bench.source)), "another processor");
    let other = Hashes { identity: blake3::hash(b"another"), ..bench.source };
    assert!(!bench.loads(&made(&settings, other)), "another module");
    let mut version = bench.file.clone();
    version[8] = 9;
    assert!(!bench.loads(&version), "another version of the header");
    assert!(!bench.loads(&made(&engine::settings(Compiler::Cranelift), bench.source)), "another compiler");
}

#[test]
fn the_directory_is_private_and_half_written_files_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/cache");
    Cache::open(&path, 1).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(path.join("x.new"), "half").unwrap();
    fs::write(path.join("x.artifact"), "whole").unwrap();
    Cache::open(&path, 1).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700, "made private again");
    assert!(!path.join("x.new").exists());
    assert!(path.join("x.artifact").exists());
}

#[test]
fn the_least_recently_used_artifacts_make_room() {
    let bench = Bench::new();
    let dir = bench.dir.path();
    let cache = Cache { most_bytes: 250, ..Cache::open(dir, 0).unwrap() };
    for (age, name) in [(30, "old"), (20, "middle"), (10, "young")] {
        let path = dir.join(format!("{name}.artifact"));
        fs::write(&path, [0; 100]).unwrap();
        let time = SystemTime::now() - std::time::Duration::from_secs(age);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    }
    cache.trim().unwrap();
    let left = ["old", "middle", "young"].map(|name| dir.join(format!("{name}.artifact")).exists());
    assert_eq!(left, [false, true, true]);
}

#[test]
fn what_the_child_wrote_of_other_bytes_is_not_adopted() {
    let bench = Bench::new();
    let temporary = bench.cache.temporary(bench.source.identity).unwrap();
    fs::write(&temporary, &bench.file).unwrap();
    let other = Hashes { module: blake3::hash(b"changed meanwhile"), ..bench.source };
    let refused = bench.cache.adopt(&temporary, other, COMPILER).unwrap_err();
    assert_eq!(refused, "it belongs to another module");
    bench.cache.adopt(&temporary, bench.source, COMPILER).unwrap();
    assert!(bench.cache.load(bench.source.identity, COMPILER).is_some(), "kept under its name");
}

#[test]
fn code_begins_where_it_is_aligned_whatever_the_settings() {
    for length in 0..200 {
        assert_eq!(header(&"x".repeat(length), source(b""), FACTS, b"code").len() % ALIGN, 0, "{length}");
    }
}

#[test]
fn modules_of_one_digest_but_other_sizes_are_told_apart() {
    let artifact = |digest: &str, size| Artifact { digest: digest.to_owned(), path: PathBuf::new(), size };
    let all = [artifact("a", 1), artifact("a", 2), artifact("b", 1)].map(|it| identity(&it));
    assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
}

/// A file whose code is a few bytes: what is looked at is the header.
fn small() -> (String, Hashes, Vec<u8>) {
    let (settings, source, code) = ("wasmer=1;cpu=none".to_owned(), source(b"module"), b"machine code");
    let file = [header(&settings, source, FACTS, code).as_slice(), code].concat();
    (settings, source, file)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(3_000), failure_persistence: None, ..ProptestConfig::default() })]

    /// Only the very file that was written is accepted.
    #[test]
    fn an_edited_artifact_is_never_accepted(
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0u8..4), 0..6),
    ) {
        let (settings, source, file) = small();
        let mut edited = file.clone();
        for (place, byte, kind) in edits {
            let place = place.index(edited.len());
            match kind {
                0 => edited[place] = byte,
                1 => edited.insert(place, byte),
                2 => edited.truncate(place.max(1)),
                _ => drop(edited.remove(place)),
            }
            if edited.is_empty() {
                edited.push(byte);
            }
        }
        let accepted = verify(&edited, &settings, source.identity, None);
        prop_assert_eq!(accepted.is_ok(), edited == file, "{:?}", accepted);
    }

    #[test]
    fn arbitrary_bytes_are_never_accepted(
        rest in proptest::collection::vec(any::<u8>(), 0..300),
        length in any::<u32>(),
        begins in 0usize..3,
    ) {
        let (settings, source, _) = small();
        let begin = match begins {
            0 => Vec::new(),
            1 => MAGIC.to_vec(),
            _ => [MAGIC.as_slice(), &VERSION.to_le_bytes(), &length.to_le_bytes()].concat(),
        };
        prop_assert!(verify(&[begin, rest].concat(), &settings, source.identity, None).is_err());
    }
}
