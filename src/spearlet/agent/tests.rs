#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::{os::unix::fs::PermissionsExt, time::Duration};
use types::{ErrorKind, ExecutionStatus as Status, Fault, NodeId};

use super::{identity, register::advertised};
use crate::executor::bench::Machine;

#[tokio::test]
async fn a_name_that_is_a_uuid_is_the_id() {
    let dir = tempfile::tempdir().unwrap();
    let id = NodeId::new();
    assert_eq!(identity(dir.path(), &id.to_string()).await.unwrap(), id);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_id_is_made_once_kept_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let id = identity(dir.path(), "edge-7").await.unwrap();
    assert_eq!(identity(dir.path(), "another name").await.unwrap(), id);
    let file = dir.path().join("node-id");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), id.to_string());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let other = tempfile::tempdir().unwrap();
    assert_ne!(identity(other.path(), "edge-7").await.unwrap(), id);
}

#[tokio::test]
async fn a_damaged_identity_is_refused_with_its_path_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node-id");
    for damage in [&b""[..], b"\n", b"x", b"not-a-uuid-at-all", b"\xff\xfe\x00\x01", &[b'7'; 4096]] {
        std::fs::write(&file, damage).unwrap();
        let fault = identity(dir.path(), "name").await.unwrap_err();
        assert_eq!(fault.code, "NODE_IDENTITY_DAMAGED");
        assert!(fault.message.contains(file.to_str().unwrap()), "{fault}");
        assert!(fault.message.contains("Restore it from a backup"), "{fault}");
        assert_eq!(std::fs::read(&file).unwrap(), damage);
    }
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(identity(dir.path(), "name").await.unwrap_err().code, "NODE_IDENTITY_DAMAGED");
    let missing = dir.path().join("nowhere");
    let fault = identity(&missing, "name").await.unwrap_err();
    assert!(fault.message.contains("cannot write"), "{fault}");
}

#[test]
fn the_advertised_address_is_the_bound_one_or_where_packets_leave_from() {
    let bound = "10.1.2.3".parse().unwrap();
    assert_eq!(advertised(bound, "127.0.0.1:1"), bound);
    let all = "0.0.0.0".parse().unwrap();
    assert_eq!(advertised(all, "127.0.0.1:50051").to_string(), "127.0.0.1");
    for registry in ["", "not an address", "registry.example:50051"] {
        assert!(!advertised(all, registry).is_unspecified());
        assert!(!advertised("::".parse().unwrap(), registry).is_unspecified());
    }
}

#[tokio::test]
async fn the_node_registers_beats_and_tells_its_real_load() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.registry.until("beats and loads", |world| world.heartbeats >= 3 && world.resources.len() >= 2).await;
    assert_eq!(process.agent.not_ready(), None);
    let world = machine.registry.world();
    let node = &world.nodes[&machine.node];
    assert_eq!((node.ip_address.as_str(), node.port, node.http_port), ("127.0.0.1", 50052, 50052));
    assert_eq!(node.metadata["name"], "spearlet-node");
    assert_eq!(node.metadata["spear.runtimes"], "wasm");
    assert_eq!(node.metadata["spear.version"], env!("CARGO_PKG_VERSION"));
    assert!(node.metadata["spear.boot_id"].parse::<uuid::Uuid>().is_ok());
    let load = world.resources.last().unwrap();
    assert!(load.total_memory_bytes > load.used_memory_bytes && load.used_memory_bytes > 0, "{load:?}");
    assert!(load.total_disk_bytes > 0 && (0.0..=100.0).contains(&load.disk_usage_percent), "{load:?}");
    assert!((0.0..=100.0).contains(&load.cpu_usage_percent), "{load:?}");
}

#[tokio::test]
async fn a_required_registry_that_does_not_answer_ends_the_start_and_is_named() {
    let mut machine = Machine::new();
    machine.config.connect_or_fail = true;
    machine.config.sms_connect_timeout = Duration::from_millis(200);
    machine.config.sms_address = "10.9.8.7:50051".to_owned();
    machine.registry.down(true);
    let fault = machine.try_start().await.map(|_| ()).unwrap_err();
    assert_eq!((fault.kind, &*fault.code), (ErrorKind::Unavailable, "REGISTRY_UNREACHABLE"));
    assert_eq!(fault.message, "cannot register with the registry at 10.9.8.7:50051 within 200ms: connection refused");
    machine.registry.down(false);
    machine.registry.refuse("register_node", Fault::new(ErrorKind::Denied, "DENIED", "wrong token"));
    let fault = machine.try_start().await.map(|_| ()).unwrap_err();
    assert_eq!(fault.message, "the registry at 10.9.8.7:50051 refuses this node: wrong token");
    // One that comes up in time is waited for.
    machine.config.sms_connect_timeout = Duration::from_secs(20);
    machine.registry.refuse("register_node", Fault::unavailable("not yet"));
    let process = machine.start().await;
    assert_eq!(process.agent.not_ready(), None);
}

#[tokio::test]
async fn a_registry_that_is_not_required_is_waited_for() {
    let machine = Machine::new();
    machine.registry.down(true);
    let process = machine.start().await;
    machine
        .until("says why", async || {
            process
                .agent
                .not_ready()
                .is_some_and(|why| why == "not registered with the registry yet: connection refused")
        })
        .await;
    machine.registry.down(false);
    machine.registry.until("registered", |world| world.registrations == 1 && world.heartbeats > 0).await;
    machine.until("ready", async || process.agent.not_ready().is_none()).await;
}

#[tokio::test]
async fn without_auto_register_the_node_waits_to_be_registered_by_others() {
    let mut machine = Machine::new();
    machine.config.auto_register = false;
    let process = machine.start().await;
    machine
        .until("says why", async || process.agent.not_ready().is_some_and(|why| why.contains("auto_register is off")))
        .await;
    assert_eq!(machine.registry.world().registrations, 0);
    machine.config.connect_or_fail = true;
    machine.start().await;
}

#[tokio::test]
async fn a_registry_that_forgot_the_node_gets_it_again() {
    let machine = Machine::new();
    let _process = machine.start().await;
    machine.registry.until("listed", |world| world.lists == 1 && world.heartbeats > 0).await;
    machine.registry.alter(|world| world.nodes.clear());
    machine.registry.until("back, and its work read again", |world| world.registrations == 2 && world.lists == 2).await;
    assert_eq!(machine.ends("echo", "x").await.status, Status::Completed);
}

#[tokio::test]
async fn a_registry_with_an_empty_disk_is_repopulated_and_running_work_goes_on() {
    let machine = Machine::new();
    let process = machine.start().await;
    let task = machine.registry.task("hold", |_| {});
    let (running, other) =
        (machine.registry.place(machine.node, task, ""), machine.registry.place(machine.node, task, ""));
    machine.until("begun", async || machine.probe.starts().len() == 2).await;
    let third = machine.registry.place(machine.node, task, "");
    machine.until("queued", async || process.executor.waiting() == 1).await;
    machine.registry.wipe();
    machine
        .registry
        .until("registered, loaded, listed", |world| {
            world.nodes.contains_key(&machine.node) && world.lists >= 2 && !world.resources.is_empty()
        })
        .await;
    machine.until("the unknown that had not begun is dropped", async || process.executor.waiting() == 0).await;
    assert_eq!(process.executor.running(), 2, "what runs goes on");
    machine.probe.release();
    machine.cleared().await;
    let ids: Vec<_> = machine.disk.keys("done/").await;
    assert_eq!(ids.len(), 3, "{ids:?} are {running} {other} {third}");
    // Work of the new log is done.
    assert_eq!(machine.ends("echo", "new").await.status, Status::Completed);
    let log_id = machine.registry.world().log_id.to_string();
    assert_eq!(machine.disk.value("agent/cursor").await.unwrap()["log_id"], log_id);
}

#[tokio::test]
async fn a_cursor_that_the_log_no_longer_reaches_leads_to_a_listing() {
    let machine = Machine::new();
    let process = machine.start().await;
    assert_eq!(machine.ends("echo", "x").await.status, Status::Completed);
    process.stop().await;
    let task = machine.registry.task("echo", |_| {});
    let id = machine.registry.place(machine.node, task, "missed");
    machine.registry.alter(|world| {
        world.rev += 100;
        world.floor = world.rev;
        world.events.clear();
    });
    let _next = machine.start().await;
    assert_eq!(machine.registry.ended(id).await.status, Status::Completed);
    assert_eq!(machine.registry.result(id), "missed");
}

#[tokio::test]
async fn a_start_with_a_cursor_of_the_same_log_follows_without_a_listing() {
    let machine = Machine::new();
    let process = machine.start().await;
    assert_eq!(machine.ends("echo", "x").await.status, Status::Completed);
    machine.cleared().await;
    process.stop().await;
    let lists = machine.registry.world().lists;
    let _next = machine.start().await;
    assert_eq!(machine.ends("echo", "y").await.status, Status::Completed);
    assert_eq!(machine.registry.world().lists, lists);
}

#[tokio::test]
async fn several_changes_of_one_revision_are_all_handled_even_across_a_crash() {
    let mut machine = Machine::new();
    let process = machine.start().await;
    machine.registry.until("listed", |world| world.lists == 1).await;
    let task = machine.registry.task("hold", |_| {});
    let first = machine.registry.place(machine.node, task, "");
    machine.until("begun", async || machine.probe.starts().len() == 1).await;
    process.kill();
    machine.disk = machine.disk.after_crash().await;
    // The second event of the revision that the first process has seen one of.
    let second = machine.registry.place(machine.node, task, "");
    machine.registry.alter(|world| {
        let rev = world.rev - 1;
        world.rev = rev;
        if let Some(api::control::AssignmentEvent::Set { rev: its, .. }) = world.events.last_mut() {
            *its = rev;
        }
        // The scripted stream hands out one event per revision; this one is the one that was missed.
        let missed = world.events.len() - 2;
        world.events.remove(missed);
    });
    machine.probe.release();
    let _next = machine.start().await;
    assert_eq!(machine.registry.ended(second).await.status, Status::Completed);
    machine.registry.ended(first).await;
}

#[tokio::test]
async fn idle_events_move_the_cursor_and_its_exported_file() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.registry.until("listed", |world| world.lists == 1).await;
    let file = machine.data().join(format!("task_events_cursor_{}.json", machine.node));
    machine.until("exported", async || std::fs::read_to_string(&file).is_ok_and(|text| text == "10")).await;
    let moving = async || {
        machine.registry.alter(|world| world.idle());
        let text = std::fs::read_to_string(&file).unwrap();
        let kept = machine.disk.value("agent/cursor").await.unwrap()["rev"].as_u64().unwrap();
        // Never half a number, never ahead of the store.
        let exported = text.parse::<u64>().unwrap();
        assert!(exported <= kept, "{exported} {kept}");
        exported > 10
    };
    machine.until("moved", moving).await;
    process.stop().await;
    let kept = machine.disk.value("agent/cursor").await.unwrap()["rev"].as_u64().unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), kept.to_string());
}

#[tokio::test]
async fn a_cursor_file_that_cannot_be_written_does_not_hold_the_work_up() {
    let machine = Machine::new();
    let file = machine.data().join(format!("task_events_cursor_{}.json", machine.node));
    std::fs::create_dir(&file).unwrap();
    std::fs::write(file.join("in the way"), "").unwrap();
    let _process = machine.start().await;
    assert_eq!(machine.ends("echo", "x").await.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_makes_the_node_unready_and_its_tries_slow_until_it_ends() {
    let mut machine = Machine::new();
    machine.config.reconnect_total_timeout = Duration::from_secs(300);
    let process = machine.start().await;
    machine.registry.until("up", |world| world.heartbeats > 0).await;
    machine.registry.down(true);
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(process.agent.not_ready(), None, "a short outage is nobody's concern");
    tokio::time::sleep(Duration::from_secs(120)).await;
    let why = process.agent.not_ready().unwrap();
    assert_eq!(why, "no contact with the registry for more than 300s: connection refused");
    machine.registry.down(false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(process.agent.not_ready(), None);
    assert_eq!(machine.registry.world().registrations, 2, "it registers again after an outage");
    assert_eq!(machine.ends("echo", "x").await.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn reconnect_exit_ends_the_process_after_that_time() {
    let mut machine = Machine::new();
    machine.config.reconnect_total_timeout = Duration::from_secs(30);
    machine.config.reconnect_exit = true;
    let process = machine.start().await;
    machine.registry.until("up", |world| world.heartbeats > 0).await;
    machine.registry.down(true);
    let ended = tokio::time::timeout(Duration::from_secs(120), process.supervisor.run(std::future::pending())).await;
    let failure = ended.unwrap().unwrap_err();
    assert_eq!(failure.task, "agent/heartbeat");
    assert!(failure.error.contains("no contact with the registry for more than 30s"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn tries_back_off_to_seven_seconds() {
    let machine = Machine::new();
    machine.registry.down(true);
    let _process = machine.start().await;
    let tries = || machine.registry.world().refused;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let early = tries();
    assert!((10..=40).contains(&early), "{early} tries in the first minute");
    tokio::time::sleep(Duration::from_secs(700)).await;
    let late = tries() - early;
    // 700 s at 7 s ± 25 %.
    assert!((80..=135).contains(&late), "{late} tries in 700 s");
}

#[tokio::test(start_paused = true)]
async fn the_registry_sets_the_pace_up_to_the_longest_pause() {
    let mut machine = Machine::new();
    machine.config.heartbeat_interval = Duration::from_secs(10);
    machine.registry.alter(|world| world.next_heartbeat = Duration::from_secs(2));
    let _process = machine.start().await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let quick = machine.registry.world().heartbeats;
    assert!((50..=90).contains(&quick), "{quick} beats in 100 s at 2 s or a little less");
    machine.registry.alter(|world| world.next_heartbeat = Duration::from_secs(3600));
    tokio::time::sleep(Duration::from_secs(100)).await;
    let slow = machine.registry.world().heartbeats - quick;
    assert!((9..=20).contains(&slow), "{slow} beats in 100 s at 10 s or a little less");
}
