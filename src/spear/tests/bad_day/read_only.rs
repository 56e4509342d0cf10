//! A data directory that cannot be used ends the start with its path, its setting and what to do, and nothing in it
//! is touched.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{machine::Mounted, seen::show};
use crate::support::{Daemon, serve};

/// Every file under a directory with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Starts a role that must not start; its exit code and its last line.
fn refused(dir: &Path, args: Vec<String>) -> (i32, String) {
    let Err((status, log)) = Daemon::try_start(dir, args) else { panic!("it started") };
    let last = log.lines().rev().find(|line| line.starts_with("spear: ")).unwrap_or_else(|| panic!("no word: {log}"));
    show("a start that is refused", format!("{last}\n({status})"));
    assert_eq!(log.lines().filter(|line| line.starts_with("spear: ")).count(), 1, "one line: {log}");
    assert!(!log.contains("panicked"), "{log}");
    (status.code().unwrap(), last.to_owned())
}

/// The setting that names the data directory of a role.
fn setting(role: &str) -> [&'static str; 2] {
    if role == "sms" { ["database.path", "--db-path"] } else { ["spearlet.storage.data_dir", "--storage-path"] }
}

#[test]
fn a_read_only_data_directory_ends_the_start_with_path_and_setting() {
    for (role, empty) in [("sms", true), ("sms", false), ("spearlet", true), ("spearlet", false)] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data").join(role);
        fs::create_dir_all(&data).unwrap();
        if !empty {
            let daemon = Daemon::start(dir.path(), role);
            daemon.signal(rustix::process::Signal::TERM);
            assert!(daemon.wait().0.success());
        }
        let before = contents(&data);
        let mounted = Mounted::read_only(&data);
        let (code, line) = refused(dir.path(), serve(role));
        drop(mounted);
        assert_eq!(code, 2, "{line}");
        for word in [&*format!("data/{role}"), "Read-only file system"].into_iter().chain(setting(role)) {
            assert!(line.contains(word), "{word}: {line}");
        }
        assert_eq!(contents(&data), before, "nothing was written");
    }
}

#[test]
fn a_data_directory_that_is_a_file_or_cannot_be_made_ends_the_start_with_path_and_setting() {
    for role in ["sms", "spearlet"] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("data").join(role), "somebody's notes").unwrap();
        let (code, line) = refused(dir.path(), serve(role));
        assert_eq!(code, 2, "{line}");
        for word in [&*format!("data/{role}"), "a file, not a directory"].into_iter().chain(setting(role)) {
            assert!(line.contains(word), "{word}: {line}");
        }
        assert_eq!(fs::read(dir.path().join("data").join(role)).unwrap(), b"somebody's notes");
        // The directory above is a file.
        fs::remove_dir_all(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("data"), "").unwrap();
        let (code, line) = refused(dir.path(), serve(role));
        assert_eq!(code, 2, "{line}");
        for word in [&*format!("data/{role}"), "Not a directory"].into_iter().chain(setting(role)) {
            assert!(line.contains(word), "{word}: {line}");
        }
    }
}

#[test]
fn a_damaged_node_id_is_refused_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "spearlet");
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait().0.success());
    let file = dir.path().join("data/spearlet/node-id");
    let good = fs::read(&file).unwrap();
    for bad in [&b""[..], b"\n", b"x", b"\xff\xfe\x00garbage", b"93f9a7ca-e033-4bb7-8b5a", &[b'0'; 5000]] {
        fs::write(&file, bad).unwrap();
        let (code, line) = refused(dir.path(), serve("spearlet"));
        assert_eq!(code, 2, "{line}");
        for word in ["data/spearlet/node-id", "damaged", "Restore it from a backup", "delete it"] {
            assert!(line.contains(word), "{word}: {line}");
        }
        assert_eq!(fs::read(&file).unwrap(), bad, "it is left as it is");
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let (code, line) = refused(dir.path(), serve("spearlet"));
    assert!(code == 2 && line.contains("it is a directory"), "{line}");
    fs::remove_dir(&file).unwrap();
    fs::write(&file, good).unwrap();
    drop(Daemon::start(dir.path(), "spearlet"));
}

#[test]
fn a_damaged_token_file_is_refused_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut args = serve("sms");
    let place = args.iter().position(|arg| arg == "--http-addr").unwrap();
    args[place + 1] = "0.0.0.0:0".to_owned();
    let daemon = Daemon::start_with(dir.path(), args.clone());
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait().0.success());
    let file = dir.path().join("data/sms/token");
    let good = fs::read(&file).unwrap();
    for bad in [&b""[..], b"x", b"\xff\xfe\x00garbage", &good[..good.len() - 9], &[b'A'; 5000]] {
        fs::write(&file, bad).unwrap();
        let (code, line) = refused(dir.path(), args.clone());
        assert_eq!(code, 2, "{line}");
        for word in ["data/sms/token", "does not hold a token", "remove it to have a new one made"] {
            assert!(line.contains(word), "{word}: {line}");
        }
        assert_eq!(fs::read(&file).unwrap(), bad, "it is left as it is");
    }
    fs::write(&file, &good).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, line) = refused(dir.path(), args.clone());
    assert!(code == 2 && line.contains("chmod 600"), "{line}");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let (code, line) = refused(dir.path(), args.clone());
    assert!(code == 2 && line.contains("data/sms/token"), "{line}");
    fs::remove_dir(&file).unwrap();
    // Its absence, and nothing else, makes a new one.
    drop(Daemon::start_with(dir.path(), args));
    assert_ne!(fs::read(&file).unwrap(), good);
}
