#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::ffi::OsString;

const TOKEN: &str = "correct-horse-battery";

struct Place {
    dir: tempfile::TempDir,
    environment: Environment,
}

impl Place {
    fn new(contexts: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join(".config/spear");
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("contexts.toml"), contexts).unwrap();
        let environment = [("HOME".to_owned(), OsString::from(dir.path()))].into();
        Self { dir, environment }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    fn target(&self, connection: &Connection) -> Target {
        connection.target(&self.environment).unwrap()
    }

    fn refused(&self, connection: &Connection) -> String {
        let stopped = connection.target(&self.environment).unwrap_err();
        assert_eq!(stopped.code, 2, "{stopped}");
        stopped.message
    }
}

fn lab() -> String {
    format!(
        "current = \"lab\"\n[context.lab]\naddr = \"lab:1\"\ntoken = \"{TOKEN}\"\n[context.home]\naddr = \"home:2\"\n"
    )
}

fn addr(text: &str) -> Connection {
    Connection { addr: Some(text.to_owned()), ..Connection::default() }
}

#[test]
fn the_address_is_from_flag_then_environment_then_context_then_default() {
    let bare = Place::new("");
    assert_eq!(bare.target(&Connection::default()).address, "127.0.0.1:8080");
    let place = Place::new(&lab());
    assert_eq!(place.target(&Connection::default()).address, "lab:1");
    let place = place.with("SPEAR_CONTEXT", "home");
    assert_eq!(place.target(&Connection::default()).address, "home:2");
    let named = Connection { context: Some("lab".to_owned()), ..Connection::default() };
    assert_eq!(place.target(&named).address, "lab:1");
    let place = place.with("SPEAR_ADDR", "variable:3");
    assert_eq!(place.target(&Connection::default()).address, "variable:3");
    assert_eq!(place.target(&addr("flag:4")).address, "flag:4");
    // An empty variable is one that is not set.
    assert_eq!(place.with("SPEAR_ADDR", "").target(&Connection::default()).address, "home:2");
}

#[test]
fn a_contexts_token_goes_to_another_address_only_when_the_context_is_named() {
    let place = Place::new(&lab());
    assert!(place.target(&Connection::default()).token.is_some());
    assert!(place.target(&addr("elsewhere:1")).token.is_none());
    let both = Connection { context: Some("lab".to_owned()), ..addr("elsewhere:1") };
    assert!(place.target(&both).token.is_some());
    assert!(place.with("SPEAR_CONTEXT", "lab").target(&addr("elsewhere:1")).token.is_none());
}

#[test]
fn a_token_is_from_a_flag_then_the_environment_then_the_context() {
    let place = Place::new(&lab());
    let file = place.dir.path().join("token");
    fs::write(&file, "another-horse-battery\n").unwrap();
    let exposed = |target: Target| target.token.unwrap().expose().to_owned();
    let place = place.with("SPEAR_TOKEN", "variable-horse-battery");
    assert_eq!(exposed(place.target(&Connection::default())), "variable-horse-battery");
    let flag = Connection { token_file: Some(file.clone()), ..Connection::default() };
    assert_eq!(exposed(place.target(&flag)), "another-horse-battery");
    let place = place.with("SPEAR_TOKEN_FILE", file.to_str().unwrap());
    assert!(place.refused(&Connection::default()).contains("both SPEAR_TOKEN and SPEAR_TOKEN_FILE"));
    let place = place.with("SPEAR_TOKEN", "");
    assert_eq!(exposed(place.target(&Connection::default())), "another-horse-battery");
}

#[test]
fn what_cannot_be_used_is_named() {
    let place = Place::new(&lab());
    let missing = Connection { context: Some("labs".to_owned()), ..Connection::default() };
    assert_eq!(place.refused(&missing), "--context names \"labs\", and there are home, lab");
    let missing = Connection { token_file: Some("/nowhere/token".into()), ..Connection::default() };
    assert!(place.refused(&missing).contains("/nowhere/token: No such file"), "{}", place.refused(&missing));
    let missing = Connection { ca_file: Some("/nowhere/ca".into()), ..Connection::default() };
    assert!(place.refused(&missing).contains("cannot read /nowhere/ca"));
    let short = place.with("SPEAR_TOKEN", "short");
    assert!(short.refused(&Connection::default()).starts_with("SPEAR_TOKEN: the token is too short"));
    let broken = Place::new("currant = \"x\"");
    let told = broken.refused(&Connection::default());
    assert!(told.contains("contexts.toml") && told.contains("currant") && told.contains("line 1"), "{told}");
    // A broken file is in nobody's way who does not need it.
    assert_eq!(broken.target(&addr("h:1")).address, "h:1");
    let error = addr("h:1/path").open(&broken.environment).unwrap_err();
    assert!(error.code == 2 && error.message.starts_with("--addr: "), "{error}");
}

#[test]
fn a_refusal_ends_with_the_code_of_its_kind_and_the_next_step() {
    let target = Place::new("").target(&Connection::default());
    let ended = |kind, code: &'static str| target.refused(&Fault::new(kind, code, "the sentence"));
    for (kind, code, number, next) in [
        (ErrorKind::Invalid, "INVALID_ARGUMENT", 2, ""),
        (ErrorKind::NotFound, "NODE_NOT_FOUND", 3, "`spear node ls`"),
        (ErrorKind::NotFound, "NO_SUCH_ROUTE", 1, "is 127.0.0.1:8080 the REST address"),
        (ErrorKind::Unauthenticated, "UNAUTHENTICATED", 4, "data/sms/token"),
        (ErrorKind::Denied, "HOST_REFUSED", 4, ""),
        (ErrorKind::Conflict, "TASK_RUNNING", 5, ""),
        (ErrorKind::Unavailable, "UNREACHABLE", 69, "`spear serve`"),
        (ErrorKind::Exhausted, "EXHAUSTED", 75, "try again"),
        (ErrorKind::StorageFull, "STORAGE_FULL", 75, "make room"),
        (ErrorKind::Deadline, "TIMEOUT", 124, ""),
        (ErrorKind::Internal, "INTERNAL", 1, "log"),
    ] {
        let stopped = ended(kind, code);
        assert_eq!(stopped.code, number, "{stopped}");
        assert!(stopped.message.starts_with("the sentence") && stopped.message.contains(next), "{stopped}");
        assert!(!stopped.message.contains('\n'));
    }
}

#[test]
fn a_wrong_token_is_named_by_where_it_is_from() {
    let target = Place::new(&lab()).target(&Connection::default());
    let stopped = target.refused(&Fault::new(ErrorKind::Unauthenticated, "UNAUTHENTICATED", "no"));
    assert!(stopped.message.ends_with("the token of context lab is not the one this server wants"), "{stopped}");
    assert!(!format!("{target:?}").contains(TOKEN));
}

#[test]
fn every_field_to_blame_is_told() {
    let mut fault = Fault::invalid_field("a", "is wrong");
    fault.errors.extend(Fault::invalid_field("b", "is too long").errors);
    let target = Place::new("").target(&Connection::default());
    assert_eq!(target.refused(&fault).message, "a: is wrong; b: is too long");
}
