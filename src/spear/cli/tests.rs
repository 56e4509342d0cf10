//! What the command line accepts and says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::config::{Resolved, Roles};

fn parse(arguments: &[&str]) -> Result<Program, clap::Error> {
    Program::try_parse_from(std::iter::once("spear").chain(arguments.iter().copied()))
}

fn served(arguments: &[&str]) -> Result<Resolved, String> {
    let all: Vec<&str> = std::iter::once("serve").chain(arguments.iter().copied()).collect();
    match parse(&all).map(|program| program.command) {
        Ok(Command::Serve(serve)) => serve.configuration(BTreeMap::new()).map_err(|problems| problems.to_string()),
        Ok(_) => panic!("another command"),
        Err(error) => Err(explain(&error).unwrap_err().message),
    }
}

#[test]
fn the_command_line_is_sound() {
    Program::command().debug_assert();
}

#[test]
fn roles_are_combined_with_commas_and_both_is_all() {
    for (given, sms, spearlet) in
        [("sms", true, false), ("spearlet", false, true), ("all", true, true), ("sms,spearlet", true, true)]
    {
        let roles = served(&["--role", given]).unwrap().roles;
        assert_eq!((roles.sms, roles.spearlet), (sms, spearlet), "{given}");
    }
    assert_eq!(served(&[]).unwrap().roles.name(), "all");
    assert!(served(&["--role", "admin"]).unwrap_err().contains("possible values: sms, spearlet, all"));
}

#[test]
fn every_flag_of_the_seed_is_accepted() {
    let registry = [
        "--role",
        "sms",
        "--grpc-addr",
        "0.0.0.0:50051",
        "--http-addr",
        "0.0.0.0:8080",
        "--enable-web-admin",
        "--web-admin-addr",
        "0.0.0.0:8081",
        "--heartbeat-timeout",
        "120",
        "--cleanup-interval",
        "300",
        "--enable-swagger",
        "--log-level",
        "info",
        "--log-format",
        "json",
        "--db-type",
        "memory",
        "--db-path",
        "x",
        "--max-upload-bytes",
        "5",
    ];
    let resolved = served(&registry).unwrap();
    let sms = resolved.sms.unwrap();
    assert_eq!((sms.config.heartbeat_timeout.as_secs(), sms.config.cleanup_interval.as_secs()), (120, 300));
    assert_eq!((sms.engine, sms.config.max_upload_bytes), (crate::config::Engine::Memory, 5));
    let agent = [
        "--role",
        "spearlet",
        "--node-name",
        "n",
        "--sms-addr",
        "127.0.0.1:50051",
        "--sms-http-addr",
        "127.0.0.1:8080",
        "--storage-backend",
        "memory",
        "--storage-path",
        "y",
        "--sms-connect-timeout-ms",
        "1",
        "--sms-connect-retry-ms",
        "2",
        "--reconnect-total-timeout-ms",
        "3",
        "--auto-register",
    ];
    let agent = served(&agent).unwrap().spearlet.unwrap();
    assert_eq!(agent.sms_addr.as_deref(), Some("127.0.0.1:50051"));
    assert!(agent.sms_addr_from_flag && agent.config.auto_register);
}

#[test]
fn auto_register_is_bare_or_has_a_value() {
    for (given, wanted) in [
        (&["--auto-register"][..], true),
        (&["--auto-register", "true"], true),
        (&["--auto-register", "false"], false),
        (&["--auto-register=false"], false),
        (&["--auto-register", "--sms-addr", "127.0.0.1:1"], true),
    ] {
        let all: Vec<&str> = ["--role", "spearlet"].into_iter().chain(given.iter().copied()).collect();
        assert_eq!(served(&all).unwrap().spearlet.unwrap().config.auto_register, wanted, "{given:?}");
    }
}

#[test]
fn an_error_is_one_line_with_what_to_do_next() {
    let error = served(&["--grcp-addr", "127.0.0.1:1"]).unwrap_err();
    assert!(!error.contains('\n'), "{error}");
    assert!(error.contains("--grpc-addr") && error.contains("see `spear serve --help`"), "{error}");
    let error = explain(&parse(&["sampl"]).err().unwrap()).unwrap_err();
    assert_eq!(error.code, 2);
    assert!(error.message.contains("sample") && error.message.contains("see `spear"), "{error}");
}

#[test]
fn help_names_default_and_variable_of_a_setting() {
    let page = parse(&["serve", "--help"]).err().unwrap().to_string();
    let line = page.split("--heartbeat-timeout").nth(1).unwrap();
    let line: String = line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        line.starts_with("<SECONDS> Silence after which a node is offline. [default: 90] [env: SMS_HEARTBEAT_TIMEOUT]"),
        "{line}"
    );
    assert!(page.contains("Exit codes: 0 stopped as asked"), "{page}");
}

#[test]
fn the_banner_names_addresses_and_the_next_step() {
    let running = crate::compose::Running {
        listeners: vec![
            ("sms/grpc", "127.0.0.1:50051".parse().unwrap()),
            ("sms/http", "0.0.0.0:8080".parse().unwrap()),
        ],
        token: None,
    };
    let mut extras = Extras { swagger: true, token: None };
    let text = banner(&running, &extras);
    for wanted in ["REST http://127.0.0.1:8080", "gRPC 127.0.0.1:50051", "/swagger-ui/", "spear sample write hello"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(text.contains("    spear run hello.wasm\n") && !text.contains("agent"), "{text}");
    extras = Extras { swagger: false, token: Some(" --token-file t".to_owned()) };
    let text = banner(&running, &extras);
    assert!(!text.contains("swagger") && text.contains("spear run --token-file t hello.wasm"), "{text}");
}

/// As called by the name of a role.
fn linked(arguments: &[&str]) -> Result<Resolved, String> {
    match super::parse(arguments.iter().map(OsString::from).collect()) {
        Ok(Command::Serve(serve)) => serve.configuration(BTreeMap::new()).map_err(|problems| problems.to_string()),
        Ok(_) => panic!("another command"),
        Err(error) => match explain(&error) {
            Ok(()) => Err(error.to_string()),
            Err(stopped) => Err(stopped.message),
        },
    }
}

#[test]
fn called_by_the_name_of_a_role_it_is_that_role_with_the_seeds_flags() {
    let registry = [
        "/usr/bin/sms",
        "--grpc-addr",
        "0.0.0.0:1",
        "--http-addr",
        "0.0.0.0:2",
        "--enable-web-admin",
        "--web-admin-addr",
        "0.0.0.0:3",
        "--heartbeat-timeout",
        "120",
        "--cleanup-interval",
        "300",
        "--enable-swagger",
        "--log-level",
        "info",
    ];
    let resolved = linked(&registry).unwrap();
    let sms = resolved.sms.unwrap();
    assert_eq!((resolved.roles.name(), sms.grpc.addr.port(), sms.http.addr.port()), ("sms", 1, 2));
    assert_eq!((sms.config.heartbeat_timeout.as_secs(), sms.config.cleanup_interval.as_secs()), (120, 300));
    let agent = [
        "spearlet",
        "--grpc-addr",
        "0.0.0.0:1",
        "--http-addr",
        "0.0.0.0:2",
        "--node-name",
        "n",
        "--sms-addr",
        "127.0.0.1:50051",
        "--sms-http-addr",
        "127.0.0.1:8080",
        "--storage-backend",
        "memory",
        "--storage-path",
        "d",
        "--auto-register",
        "false",
        "--log-level",
        "warn",
        "--disable-swagger",
        "--sms-connect-timeout-ms",
        "1",
        "--sms-connect-retry-ms",
        "2",
        "--reconnect-total-timeout-ms",
        "3",
    ];
    let resolved = linked(&agent).unwrap();
    let agent = resolved.spearlet.unwrap();
    assert_eq!((resolved.roles.name(), agent.grpc.addr.port(), agent.http.addr.port()), ("spearlet", 1, 2));
    assert_eq!((resolved.log.level, agent.config.swagger_enabled), (crate::config::LogLevel::Warn, false));
    assert!(agent.sms_addr_from_flag && !agent.config.auto_register);
    assert_eq!(linked(&["./spearlet", "--sms-grpc-addr", "h:1"]).unwrap().spearlet.unwrap().sms_addr.unwrap(), "h:1");
}

#[test]
fn called_by_the_name_of_a_role_it_has_no_commands_and_no_flags_of_the_other_role() {
    let told = linked(&["sms", "task", "ls"]).unwrap_err();
    assert!(told.contains("use `spear task`") && told.contains("see `sms --help`"), "{told}");
    let told = linked(&["sms", "--node-name", "n"]).unwrap_err();
    assert!(told.contains("--node-name") && told.contains("see `sms --help`"), "{told}");
    assert!(linked(&["spearlet", "--db-path", "x"]).is_err());
    assert!(linked(&["sms", "--role", "all"]).is_err());
    let page = linked(&["spearlet", "--help"]).unwrap_err();
    assert!(page.contains("called by the name of the role") && page.contains("`spear --help`"), "{page}");
    assert!(page.contains("--http-addr <ADDR>") && !page.contains("--spearlet-http-addr"), "{page}");
    assert!(!page.contains("--heartbeat-timeout") && !page.contains("With --role"), "{page}");
    for role in ["sms", "spearlet"] {
        assert_eq!(linked(&[role, "-V"]).unwrap_err().trim(), format!("{role} {}", env!("CARGO_PKG_VERSION")));
        for roles in [Roles::SMS, Roles::SPEARLET] {
            link::command(roles).debug_assert();
        }
    }
    let elsewhere = super::parse(["/opt/sms/spear", "config", "example"].iter().map(OsString::from).collect());
    assert!(matches!(elsewhere, Ok(Command::Config(_))), "only the name of the program counts, not its directory");
}
