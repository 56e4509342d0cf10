use std::time::Duration;

use crate::{artifact::ArtifactUri, clock::ManualClock, *};

#[test]
fn an_id_is_a_hyphenated_uuid_and_nothing_else() {
    let id = TaskId::new();
    assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
    for wrong in ["", "x", "93f9a7cae0334bb78b5ac0899f9a52b8", "{93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8}", "../../etc"] {
        let fault = wrong.parse::<TaskId>().unwrap_err();
        assert_eq!(fault.kind, ErrorKind::Invalid);
        assert_eq!(fault.errors[0].field, "task_id");
    }
}

#[test]
fn an_artifact_address_says_where_and_refuses_the_rest() {
    let id = FileId::new();
    assert_eq!(ArtifactUri::parse(&format!("sms+file://{id}")).unwrap(), ArtifactUri::SmsFile { host: None, id });
    assert_eq!(
        ArtifactUri::parse(&format!("smsfile://10.0.0.1:8080/{id}")).unwrap(),
        ArtifactUri::SmsFile { host: Some("10.0.0.1:8080".into()), id }
    );
    assert!(matches!(ArtifactUri::parse("s3://b/k/x.wasm").unwrap(), ArtifactUri::S3 { service: "s3", .. }));
    assert!(matches!(ArtifactUri::parse("minio://b/k").unwrap(), ArtifactUri::S3 { service: "minio", .. }));
    for wrong in ["", "x", "file:///etc/passwd", "sms+file://", "sms+file://../x", "s3://b", "s3:///k", "ftp://x/y"] {
        assert_eq!(ArtifactUri::parse(wrong).unwrap_err().errors[0].field, "uri", "{wrong}");
    }
}

#[test]
fn a_terminal_status_stays_but_lost_yields_to_a_late_report() {
    use ExecutionStatus::*;
    for ended in [Completed, Failed, Cancelled, Timeout] {
        assert!(ExecutionStatus::ALL.into_iter().all(|next| !ended.may_become(next)));
    }
    assert!(Lost.may_become(Completed) && !Lost.may_become(Running));
    assert!(Pending.may_become(Running) && !Running.may_become(Pending));
}

#[test]
fn an_operators_word_shows_only_while_the_node_lives() {
    let mut node = Node {
        id: NodeId::new(),
        ip_address: "10.0.0.1".into(),
        port: 1,
        http_port: 0,
        metadata: [("spear.runtimes".to_owned(), "wasm, process".to_owned())].into(),
        liveness: Liveness::Online,
        status_override: Some("maintenance".into()),
        leaving: false,
        registered_at: Timestamp(0),
        last_heartbeat: Timestamp(0),
    };
    assert_eq!((node.status(), node.takes_work()), ("maintenance", false));
    node.liveness = Liveness::Offline;
    assert_eq!(node.status(), "offline");
    assert!(node.has_runtime("process") && !node.has_runtime("proc"));
}

#[test]
fn the_manual_clock_keeps_wall_and_monotonic_apart() {
    let clock = ManualClock::new(Timestamp(1_000));
    clock.advance(Duration::from_secs(2));
    clock.jump_wall(Timestamp(0));
    assert_eq!((clock.wall(), clock.monotonic()), (Timestamp(0), Duration::from_secs(2)));
    assert_eq!(Timestamp(1_732_186_800_123).to_string(), "2024-11-21T11:00:00.123Z");
}
