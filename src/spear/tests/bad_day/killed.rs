//! An agent is killed while it works: what ran there is lost, what waited there goes elsewhere, and all of it can
//! be seen.

use serde_json::{Value, json};

use super::seen::{show, statuses};
use crate::{
    outage::slow,
    remote::agent,
    support::{Client, Daemon, serve, spear},
};

fn registry(dir: &std::path::Path) -> Daemon {
    let mut command = spear(dir);
    command.args(serve("sms")).env("SMS_HEARTBEAT_TIMEOUT", "4").env("SMS_HEARTBEAT_INTERVAL", "1");
    command.env("SMS_CLEANUP_INTERVAL", "1").env("SMS_LOST_AFTER", "1");
    Daemon::launch(command)
}

/// An agent that runs one execution at a time.
fn narrow(dir: &std::path::Path, sms: &Daemon) -> Daemon {
    let mut command = spear(dir);
    command.args(agent(sms)).env("SPEARLET_RUNTIME_CONCURRENCY", "1");
    Daemon::launch(command)
}

#[tokio::test]
async fn work_of_an_agent_that_never_comes_back_is_lost_or_goes_to_another_visibly() {
    let (sms_dir, first_dir, second_dir) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sms = registry(sms_dir.path());
    let first = narrow(first_dir.path(), &sms);
    let client = Client::new(&sms.sms());
    let uri = client.upload("slow.wasm", slow()).await;
    let (_, running) = client.task("running", &uri, json!({})).await;
    let runs = |now: &Value| now["status"] == json!("running") && now["progress"]["phase"] == json!("run");
    client.until(&format!("/api/v1/executions/{running}"), runs).await;
    let (_, waiting) = client.task("waiting", &uri, json!({})).await;
    let path = format!("/api/v1/executions/{waiting}");
    let placed = client.until(&path, |now| now["node_uuid"].is_string()).await;
    assert_eq!(placed["attempt"], json!(1));
    first.kill();

    // What ran is lost: it may have had effects, so nobody runs it again unasked.
    let lost = client.ended(&running).await;
    show("an execution whose node never came back", &lost);
    assert_eq!((&lost["status"], &lost["reason"]), (&json!("lost"), &json!("node_lost")), "{lost}");
    assert!(lost["message"].as_str().unwrap().contains("has been offline for longer than 1s"), "{lost}");
    assert_eq!(statuses(&client, &running).await, ["pending", "running", "lost"]);

    // What waited goes on, as another attempt, as soon as there is a node.
    let free = client.until(&path, |now| now["attempt"] == json!(2)).await;
    show("an execution that waited there", &free);
    assert_eq!((&free["status"], &free["reason"]), (&json!("pending"), &json!("no_node")), "{free}");
    let _second = narrow(second_dir.path(), &sms);
    let ended = client.ended(&waiting).await;
    assert_eq!(
        (&ended["status"], &ended["attempt"], &ended["result"]["text"]),
        (&json!("completed"), &json!(2), &json!("before\nafter\n")),
        "{ended}"
    );
    assert_ne!(ended["node_uuid"], placed["node_uuid"]);
}

#[tokio::test]
async fn work_of_an_agent_that_comes_back_in_time_fails_with_the_reason_and_the_rest_goes_on_there() {
    let (sms_dir, agent_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sms = Daemon::start(sms_dir.path(), "sms");
    let first = narrow(agent_dir.path(), &sms);
    let client = Client::new(&sms.sms());
    let uri = client.upload("slow.wasm", slow()).await;
    let (_, running) = client.task("running", &uri, json!({})).await;
    let runs = |now: &Value| now["status"] == json!("running") && now["progress"]["phase"] == json!("run");
    client.until(&format!("/api/v1/executions/{running}"), runs).await;
    let (_, waiting) = client.task("waiting", &uri, json!({})).await;
    let path = format!("/api/v1/executions/{waiting}");
    client.until(&path, |now| now["node_uuid"].is_string()).await;
    first.kill();
    let second = narrow(agent_dir.path(), &sms);
    let failed = client.ended(&running).await;
    show("an execution whose node was killed and came back", &failed);
    assert_eq!((&failed["status"], &failed["reason"]), (&json!("failed"), &json!("node_lost")), "{failed}");
    assert_eq!(failed["message"], json!("the node restarted while it ran"), "{failed}");
    show("the agent's log", second.logged(&["it ran when the node stopped; reported as lost"]));
    let ended = client.ended(&waiting).await;
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("completed"), &json!(1)), "{ended}");
    let log = client.until(&format!("/api/v1/executions/{running}/logs"), |log| log["completed"] == json!(true)).await;
    let last = log["lines"].as_array().unwrap().last().unwrap().clone();
    show("the last line of its log", &last);
    assert!(last["message"].as_str().unwrap().contains("the node restarted while it ran"), "{last}");
}
