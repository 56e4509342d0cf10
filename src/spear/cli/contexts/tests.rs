#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use super::*;
use std::ffi::OsString;

fn place() -> (tempfile::TempDir, Environment) {
    let dir = tempfile::tempdir().unwrap();
    let environment = [("XDG_CONFIG_HOME".to_owned(), OsString::from(dir.path()))].into();
    (dir, environment)
}

fn set(environment: &Environment, name: &str, addr: Option<&str>, token: Option<&str>) -> Result<Value, Stopped> {
    let (addr, token) = (addr.map(str::to_owned), token.map(str::to_owned));
    change(environment, |contexts| contexts.set(name, addr, (None, token), None))
}

#[test]
fn what_is_set_is_read_again_by_its_owner_only() {
    let (dir, environment) = place();
    set(&environment, "lab", Some("lab:8080"), Some("correct-horse-battery")).unwrap();
    let path = dir.path().join("spear/contexts.toml");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let contexts = Contexts::read(&environment).unwrap();
    assert_eq!(contexts.in_use().unwrap().0, "lab");
    assert_eq!(contexts.all["lab"].token.as_deref(), Some("correct-horse-battery"));
    assert!(!contexts.view("lab").to_string().contains("horse") && !format!("{contexts:?}").contains("horse"));
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the file and its lock: {left:?}");
}

#[test]
fn a_change_keeps_what_it_does_not_name() {
    let (_dir, environment) = place();
    set(&environment, "lab", Some("lab:1"), Some("correct-horse-battery")).unwrap();
    set(&environment, "lab", Some("lab:2"), None).unwrap();
    set(&environment, "home", Some("home:3"), None).unwrap();
    let contexts = Contexts::read(&environment).unwrap();
    assert_eq!((&*contexts.all["lab"].addr, contexts.all["lab"].token.is_some()), ("lab:2", true));
    assert_eq!(contexts.current.as_deref(), Some("lab"), "the first one stays in use");
    let refused = set(&environment, "new", None, None).unwrap_err();
    assert!(refused.message.contains("spear context set new --addr"), "{refused}");
    let refused = set(&environment, "lab", Some("lab:2/x"), None).unwrap_err();
    assert_eq!(refused.code, 2);
    assert_eq!(Contexts::read(&environment).unwrap(), contexts, "nothing is written of a refused change");
}

#[test]
fn changes_at_the_same_time_take_turns() {
    let (_dir, environment) = place();
    std::thread::scope(|scope| {
        for index in 0..8 {
            let environment = &environment;
            scope.spawn(move || set(environment, &format!("c{index}"), Some("h:1"), None).unwrap());
        }
    });
    assert_eq!(Contexts::read(&environment).unwrap().all.len(), 8);
}

#[test]
fn without_a_home_there_are_no_contexts_and_setting_one_says_why() {
    let environment = Environment::new();
    assert_eq!(Contexts::read(&environment).unwrap(), Contexts::default());
    let refused = set(&environment, "lab", Some("h:1"), None).unwrap_err();
    assert!(refused.message.contains("HOME or XDG_CONFIG_HOME"), "{refused}");
}

#[test]
fn names_are_for_shells_and_tables() {
    assert!(check_name("lab-2.b_C").is_ok());
    for name in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
        assert_eq!(check_name(name).unwrap_err().code, 2, "{name}");
    }
}
