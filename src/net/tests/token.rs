//! Tokens on disk and in memory.

use std::{fs, os::unix::fs::PermissionsExt};
use types::ErrorKind;

use crate::{Token, TokenError};

#[test]
fn a_token_is_made_once_and_kept_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("data/sms");
    let (token, path, made) = Token::load_or_create(&home, "token").unwrap();
    assert!(made);
    assert_eq!(path, home.join("token"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(token.expose().len(), 43);
    let (again, _, made) = Token::load_or_create(&home, "token").unwrap();
    assert!(!made);
    assert!(again.matches(token.expose()) && Token::from_file(&path).unwrap().matches(token.expose()));
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1, "nothing unfinished is left");
    let (other, ..) = Token::load_or_create(&dir.path().join("other"), "token").unwrap();
    assert!(!other.matches(token.expose()));
}

#[test]
fn many_starters_agree_on_one_token() {
    let dir = tempfile::tempdir().unwrap();
    let tokens: Vec<_> = std::thread::scope(|scope| {
        let starters: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Token::load_or_create(dir.path(), "token").unwrap())).collect();
        starters.into_iter().map(|starter| starter.join().unwrap()).collect()
    });
    assert_eq!(tokens.iter().filter(|(_, _, made)| *made).count(), 1);
    assert!(tokens.iter().all(|(token, ..)| token.matches(tokens[0].0.expose())));
}

#[test]
fn a_damaged_or_open_token_file_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    for (content, mode) in [
        (&b""[..], 0o600),
        (b"short", 0o600),
        (b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 0o600),
        (b"\xff\xfe\x00", 0o600),
        (&[b'A'; 100_000], 0o600),
    ] {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Token::load_or_create(dir.path(), "token").unwrap_err();
        assert!(matches!(error, TokenError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!((error.kind(), fs::read(&path).unwrap()), (ErrorKind::Invalid, content.to_vec()));
    }
    fs::remove_file(&path).unwrap();
    Token::load_or_create(dir.path(), "token").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = Token::load_or_create(dir.path(), "token").unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn a_given_token_is_checked() {
    let good = Token::from_text("  a-secret-of-enough-characters\n").unwrap();
    assert!(good.matches("a-secret-of-enough-characters"));
    for wrong in ["", "a-secret-of-enough-character", "a-secret-of-enough-characters ", "A-secret-of-enough-characters"]
    {
        assert!(!good.matches(wrong), "{wrong:?}");
    }
    for bad in ["", "short", "with a space in the middle", "sécret-of-enough-characters", &"x".repeat(4097)] {
        assert!(matches!(Token::from_text(bad), Err(TokenError::Text(_))), "{bad:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let missing = Token::from_file(&dir.path().join("missing")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[test]
fn a_token_is_never_shown() {
    let token = Token::from_text("canary-canary-canary").unwrap();
    let access = crate::Access::token(token.clone());
    let bearer = crate::channel::Bearer::new(Some(token.clone()));
    let shown = format!("{token:?} {access:?} {:?} {bearer:?}", token.header());
    assert!(!shown.contains("canary"), "{shown}");
}
