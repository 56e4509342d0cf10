//! The binary through links named after the original's programs.

use rustix::process::Signal;
use std::{os::unix::fs::symlink, path::Path, process::Command};

use crate::support::{Client, Daemon};

/// A link to the program.
fn link(dir: &Path, name: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    symlink(env!("CARGO_BIN_EXE_spear"), &path).unwrap();
    path
}

#[tokio::test]
async fn a_link_named_sms_is_the_registry_and_one_named_spearlet_an_agent_that_works_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (sms, spearlet) = (link(dir.path(), "sms"), link(dir.path(), "spearlet"));
    let addresses = ["--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--log-format", "json"];
    let registry = Daemon::start_as(dir.path(), &sms, addresses.map(str::to_owned).to_vec());
    let mut flags = addresses.map(str::to_owned).to_vec();
    let (grpc, http) = (registry.address("sms/grpc").to_string(), registry.address("sms/http").to_string());
    let more = ["--sms-addr", &grpc, "--sms-http-addr", &http, "--auto-register", "--node-name", "linked"];
    flags.extend(more.map(str::to_owned));
    let agent = Daemon::start_as(dir.path(), &spearlet, flags);
    let client = Client::new(&registry.sms());
    let nodes = client.until("/api/v1/nodes", |nodes| nodes["nodes"][0]["status"] == "online").await;
    assert_eq!(nodes["nodes"][0]["metadata"]["name"], "linked", "{nodes}");
    // Modules are compiled in children of the program, which must be found behind the link.
    let uri = client.upload("hello.wasm", crate::support::sample("hello")).await;
    let (_, execution) = client.task("hello", &uri, serde_json::json!({})).await;
    assert_eq!(client.ended(&execution).await["status"], "completed");
    for daemon in [agent, registry] {
        daemon.signal(Signal::TERM);
        let (status, log) = daemon.wait();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}

#[test]
fn the_links_answer_for_help_and_version_and_refuse_commands() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["sms", "spearlet"] {
        let program = link(dir.path(), name);
        let run = |flag: &str| {
            let output = Command::new(&program).arg(flag).current_dir(dir.path()).env_clear().output().unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            (output.status.code(), text(output.stdout), text(output.stderr))
        };
        for flag in ["-V", "--version"] {
            assert_eq!(run(flag), (Some(0), format!("{name} {}\n", env!("CARGO_PKG_VERSION")), String::new()));
        }
        for flag in ["-h", "--help"] {
            let (code, page, _) = run(flag);
            assert!(code == Some(0) && page.contains(&format!("Usage: {name} [OPTIONS]")), "{page}");
        }
        let (code, _, told) = run("serve");
        assert_eq!(code, Some(2));
        assert!(told.contains("has no commands, use `spear serve`"), "{told}");
    }
}
