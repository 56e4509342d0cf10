#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::ffi::OsString;

fn asked(variables: &[(&str, &str)]) -> Result<Vec<String>, Stopped> {
    usual(&variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect())
}

#[test]
fn without_an_address_the_usual_ones_are_asked_or_those_of_the_environment() {
    assert_eq!(asked(&[]).unwrap(), ["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082"]);
    let set = [("SMS_HTTP_ADDR", "0.0.0.0:9000"), ("SPEARLET_HTTP_ADDR", "[::]:9001")];
    assert_eq!(asked(&set).unwrap(), ["127.0.0.1:9000", "[::1]:9001"]);
    let refused = asked(&[("SMS_HTTP_ADDR", "nowhere")]).unwrap_err();
    assert!(refused.code == 2 && refused.message.contains("SMS_HTTP_ADDR"), "{refused}");
}

fn quiet() -> Show {
    let mut show = Show::new(&Output::default(), &Environment::new()).unwrap();
    show.quiet = true;
    show
}

fn code(guessed: bool, said: Vec<Said>) -> u8 {
    let all: Vec<(String, Said)> = said.into_iter().map(|said| ("h:1".to_owned(), said)).collect();
    report(&quiet(), guessed, &all).map_or_else(|stopped| stopped.code, |()| 0)
}

#[test]
fn silence_counts_where_it_was_asked_for_and_where_all_are_silent() {
    let ready = || Said::Answer(true, Vec::new());
    let refusing = || Said::Answer(false, vec!["store: full".to_owned()]);
    let (nothing, foreign) = (|| Said::Nothing("refused".to_owned()), || Said::Foreign("404".to_owned()));
    assert_eq!(code(true, vec![ready(), nothing(), foreign()]), 0);
    assert_eq!(code(true, vec![ready(), refusing()]), 1);
    assert_eq!(code(true, vec![ready(), Said::Slow]), 1);
    assert_eq!(code(true, vec![nothing(), foreign(), nothing()]), 69);
    assert_eq!(code(false, vec![ready(), nothing()]), 1);
    assert_eq!(code(false, vec![ready(), foreign()]), 1);
    assert_eq!(code(false, vec![nothing()]), 69);
}
