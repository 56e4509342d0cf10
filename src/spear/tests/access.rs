//! Who may come in.

use serde_json::json;

use crate::support::{Client, Daemon, channel, serve};
use api::proto::sms::{ListNodesRequest, node_service_client::NodeServiceClient};

#[tokio::test]
async fn loopback_needs_no_token_but_refuses_foreign_hosts_and_origins() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "sms");
    let client = Client::new(&daemon.sms());
    let nodes = || client.http.get(format!("{}/api/v1/nodes", client.base));
    assert_eq!(client.send(nodes()).await.0, 200);
    assert_eq!(client.send(nodes().header("host", "evil.example")).await.0, 421);
    assert_eq!(client.send(nodes().header("origin", "http://evil.example")).await.0, 403);
    let answer = nodes().send().await.unwrap();
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
}

fn everywhere(mut args: Vec<String>) -> Vec<String> {
    for arg in &mut args {
        if arg == "127.0.0.1:0" {
            *arg = "0.0.0.0:0".to_owned();
        }
    }
    args
}

#[tokio::test]
async fn any_other_bind_makes_and_keeps_a_token_and_wants_it_on_rest_grpc_and_events() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_with(dir.path(), everywhere(serve("sms")));
    let token_file = dir.path().join("data/sms/token");
    let token = std::fs::read_to_string(&token_file).unwrap().trim().to_owned();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&token_file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!daemon.log().contains(&token), "a token never stands in a log");
    let http = format!("http://127.0.0.1:{}", daemon.address("sms/http").port());
    let client = Client::new(&http);
    for path in ["/api/v1/nodes", "/api/v1/events", "/api/v1/executions", "/swagger-ui/", "/api/openapi.json"] {
        let answer = client.http.get(format!("{http}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        let answer = client.http.get(format!("{http}{path}")).bearer_auth("wrong").send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        let answer = client.http.get(format!("{http}{path}")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    assert_eq!(client.get("/health").await.0, 200, "probes need no token");

    let channel = channel((std::net::Ipv4Addr::LOCALHOST, daemon.address("sms/grpc").port()).into()).await;
    let refused = NodeServiceClient::new(channel.clone()).list_nodes(ListNodesRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let bearer = format!("Bearer {token}").parse::<tonic::metadata::MetadataValue<_>>().unwrap();
    let mut allowed = NodeServiceClient::with_interceptor(channel, move |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("authorization", bearer.clone());
        Ok(request)
    });
    allowed.list_nodes(ListNodesRequest::default()).await.unwrap();

    daemon.kill();
    let _again = Daemon::start_with(dir.path(), everywhere(serve("sms")));
    assert_eq!(std::fs::read_to_string(&token_file).unwrap().trim(), token, "the token is kept");
}

#[tokio::test]
async fn an_agent_presents_the_token_and_the_way_out_must_be_said_in_so_many_words() {
    let dir = tempfile::tempdir().unwrap();
    let agent_dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "a-shared-secret-of-some-length-0123456789\n").unwrap();
    let token = dir.path().join("token").display().to_string();
    let mut args = serve("sms");
    args.extend(["--token-file".to_owned(), token.clone()]);
    let sms = Daemon::start_with(dir.path(), args);
    let client = Client::new(&sms.sms());
    assert_eq!(client.get("/api/v1/nodes").await.0, 401, "a configured token is wanted on loopback too");
    let mut args = crate::remote::agent(&sms);
    args.extend(["--token-file".to_owned(), token]);
    let _agent = Daemon::start_with(agent_dir.path(), args);
    let nodes = client
        .http
        .get(format!("{}/api/v1/nodes", client.base))
        .bearer_auth("a-shared-secret-of-some-length-0123456789");
    let (_, nodes) = client.send(nodes).await;
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(1), "{nodes}");
    assert_eq!(nodes["nodes"][0]["status"], json!("online"));

    let open_dir = tempfile::tempdir().unwrap();
    let mut args = everywhere(serve("sms"));
    args.push("--insecure-no-auth".to_owned());
    let open = Daemon::start_with(open_dir.path(), args);
    assert!(open.log().contains("insecure"), "an open door is said aloud:\n{}", open.log());
    assert_eq!(
        Client::new(&format!("http://127.0.0.1:{}", open.address("sms/http").port())).get("/api/v1/nodes").await.0,
        200
    );
}
