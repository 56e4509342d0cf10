#![allow(clippy::unwrap_used, reason = "tests")]

use api::Registration;
use bus::Bus;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{Memory, Store};
use supervise::{Budget, Phase, Supervisor};
use types::{
    Clock, ErrorKind, Fault, Liveness, Node, NodeId, NodeResource, Timestamp,
    clock::ManualClock,
    node::{BOOT_KEY, RUNTIMES_KEY},
};

use super::{
    liveness::{Pulses, Rules},
    records::word,
    service::{Service, Update},
};
use crate::{
    Config,
    page::{MOST, Page},
};

const TIMEOUT: u64 = 90;
const SWEEP: u64 = 30;
const REMOVE: u64 = 600;
/// Until a silent node is surely marked.
const NOTICED: u64 = TIMEOUT + SWEEP + 2;

struct World {
    clock: Arc<ManualClock>,
    supervisor: Supervisor,
    store: Store,
    bus: Bus,
    nodes: Arc<Service>,
}

async fn service(world: (&Store, &Bus, &Supervisor), clock: &Arc<ManualClock>) -> Arc<Service> {
    let config = Config {
        heartbeat_timeout: Duration::from_secs(TIMEOUT),
        cleanup_interval: Duration::from_secs(SWEEP),
        remove_after: Duration::from_secs(REMOVE),
        ..Config::default()
    };
    let scope = world.2.scope(Phase::Work, "sms");
    Service::start(world.0, world.1, clock.clone(), config.into(), &scope).await.unwrap()
}

impl World {
    /// Nodes that may get new work of a kind.
    fn candidates(&self, runtime: &str) -> Vec<Node> {
        let fits = |node: &Node| self.nodes.takes_work(node.id).is_some_and(|node| node.has_runtime(runtime));
        self.nodes.all(None).into_iter().filter(fits).collect()
    }

    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
        let supervisor = Supervisor::new(Budget::default());
        let store = Store::start(Arc::new(Memory::new()), &supervisor.scope(Phase::Store, "store"));
        let bus = Bus::start(&store, &supervisor.scope(Phase::Bus, "bus"));
        let nodes = service((&store, &bus, &supervisor), &clock).await;
        Self { clock, supervisor, store, bus, nodes }
    }

    /// Another registry over the same records, as after a restart.
    async fn restart(&mut self) {
        self.nodes = service((&self.store, &self.bus, &self.supervisor), &self.clock).await;
    }

    async fn node(&self) -> NodeId {
        self.nodes.register(registration("10.0.0.1")).await.unwrap().id
    }

    async fn nodes<const N: usize>(&self) -> [NodeId; N] {
        let mut ids = [NodeId::new(); N];
        for id in &mut ids {
            *id = self.node().await;
        }
        ids
    }

    /// Lets time pass as it does, second by second, while these nodes give signs of life.
    async fn pass(&self, seconds: u64, alive: &[NodeId]) {
        for second in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            if second % 10 == 0 {
                for id in alive {
                    self.nodes.heartbeat(*id, BTreeMap::new()).await.unwrap();
                }
            }
            self.nodes.tick().await;
        }
    }

    fn liveness(&self, id: NodeId) -> Option<Liveness> {
        self.nodes.get(id).map(|node| node.liveness)
    }

    fn rev(&self) -> u64 {
        *self.store.head().borrow()
    }
}

fn registration(address: &str) -> Registration {
    Registration {
        id: NodeId::new(),
        ip_address: address.to_owned(),
        port: 50052,
        http_port: 8081,
        metadata: [(RUNTIMES_KEY.to_owned(), "wasm,process".to_owned())].into(),
    }
}

fn said(status: &str) -> Update {
    Update { status: Some(word("status", status).unwrap()), ..Update::default() }
}

const ONLINE: Option<Liveness> = Some(Liveness::Online);
const OFFLINE: Option<Liveness> = Some(Liveness::Offline);

#[tokio::test]
async fn heartbeats_write_nothing_and_only_transitions_do() {
    let world = World::new().await;
    let id = world.node().await;
    let registered = world.rev();
    world.pass(300, &[id]).await;
    assert_eq!((world.liveness(id), world.rev()), (ONLINE, registered));
    world.pass(NOTICED, &[]).await;
    assert_eq!((world.liveness(id), world.rev()), (OFFLINE, registered + 1));
    world.nodes.heartbeat(id, BTreeMap::new()).await.unwrap();
    assert_eq!((world.liveness(id), world.rev()), (ONLINE, registered + 2), "seen by the next read");
}

#[tokio::test]
async fn a_node_within_the_timeout_is_never_called_offline() {
    let world = World::new().await;
    let id = world.node().await;
    world.pass(TIMEOUT, &[]).await;
    assert_eq!(world.liveness(id), ONLINE);
}

#[tokio::test]
async fn a_node_offline_for_long_is_removed_with_its_load_and_must_register_again() {
    let world = World::new().await;
    let id = world.node().await;
    world.nodes.update_resource(id, NodeResource::default()).await.unwrap();
    world.pass(NOTICED, &[]).await;
    world.pass(REMOVE - SWEEP, &[]).await;
    assert_eq!(world.liveness(id), OFFLINE, "not before its time");
    world.pass(2 * SWEEP + 2, &[]).await;
    assert_eq!(world.liveness(id), None);
    assert_eq!(world.nodes.resource(id), None);
    let fault = world.nodes.heartbeat(id, BTreeMap::new()).await.unwrap_err();
    assert_eq!(fault.code, "NODE_NOT_FOUND");
}

#[tokio::test]
async fn a_restart_gives_every_node_its_full_time_and_a_grace() {
    let mut world = World::new().await;
    let id = world.node().await;
    world.pass(TIMEOUT - 1, &[]).await;
    world.restart().await;
    world.pass(TIMEOUT + 29, &[]).await;
    assert_eq!(world.liveness(id), ONLINE);
    world.pass(SWEEP + 2, &[]).await;
    assert_eq!(world.liveness(id), OFFLINE);
}

#[tokio::test]
async fn a_pause_of_the_registry_itself_kills_nobody() {
    let world = World::new().await;
    let ids = world.nodes::<4>().await;
    world.clock.advance(Duration::from_secs(3600));
    world.nodes.tick().await;
    world.pass(TIMEOUT + 29, &[]).await;
    assert!(ids.iter().all(|id| world.liveness(*id) == ONLINE));
    world.pass(SWEEP + 2, &[]).await;
    assert!(ids.iter().all(|id| world.liveness(*id) == OFFLINE));
}

#[tokio::test]
async fn a_pause_does_not_count_as_time_offline() {
    let world = World::new().await;
    let id = world.node().await;
    world.pass(NOTICED, &[]).await;
    world.clock.advance(Duration::from_secs(2 * REMOVE));
    world.nodes.tick().await;
    world.pass(SWEEP + 2, &[]).await;
    assert_eq!(world.liveness(id), OFFLINE);
}

#[tokio::test]
async fn jumps_of_the_wall_clock_decide_nothing() {
    let world = World::new().await;
    let id = world.node().await;
    for day in [86_400_000, -86_400_000] {
        world.clock.jump_wall(Timestamp(world.clock.wall().0 + day));
        world.pass(SWEEP + 2, &[id]).await;
        assert_eq!(world.liveness(id), ONLINE);
    }
}

#[tokio::test]
async fn most_nodes_silent_at_once_are_shown_so_but_none_is_removed_until_they_are_back() {
    let world = World::new().await;
    let [a, b, c, d, e] = world.nodes::<5>().await;
    world.pass(NOTICED, &[a, b]).await;
    assert_eq!([c, d, e].map(|id| world.liveness(id)), [OFFLINE; 3]);
    assert!(world.nodes.braked() && world.nodes.stats().expiry_frozen);
    world.pass(2 * REMOVE, &[a, b]).await;
    assert_eq!([c, d, e].map(|id| world.liveness(id)), [OFFLINE; 3], "kept");
    world.nodes.heartbeat(c, BTreeMap::new()).await.unwrap();
    world.pass(2 * SWEEP, &[a, b, c]).await;
    assert!(!world.nodes.braked());
    assert_eq!([c, d, e].map(|id| world.liveness(id)), [ONLINE, None, None], "the two that stayed away go");
}

#[tokio::test]
async fn deleting_the_silent_by_hand_lets_the_brake_go() {
    let world = World::new().await;
    let [a, b, c, d, e] = world.nodes::<5>().await;
    world.pass(NOTICED, &[a, b]).await;
    assert!(world.nodes.braked());
    for id in [d, e] {
        world.nodes.delete(id).await.unwrap();
    }
    world.pass(SWEEP + 1, &[a, b]).await;
    assert!(!world.nodes.braked());
    assert_eq!(world.liveness(c), OFFLINE);
}

#[tokio::test]
async fn few_silent_nodes_or_a_small_share_do_not_engage_the_brake() {
    let world = World::new().await;
    let [_, _] = world.nodes::<2>().await;
    world.pass(NOTICED, &[]).await;
    assert!(!world.nodes.braked(), "two of two");
    let alive = world.nodes::<4>().await;
    let [_, _, _] = world.nodes::<3>().await;
    world.pass(NOTICED, &alive).await;
    assert!(!world.nodes.braked(), "three of seven");
}

#[tokio::test]
async fn an_operators_word_is_shown_while_the_node_lives_and_online_takes_it_back() {
    let world = World::new().await;
    let id = world.node().await;
    let shown = |id| world.nodes.get(id).unwrap().status().to_owned();
    world.nodes.update(id, said("active")).await.unwrap();
    assert_eq!((shown(id).as_str(), world.candidates("wasm").len()), ("active", 1));
    world.pass(NOTICED, &[]).await;
    assert_eq!(shown(id), "offline");
    world.nodes.heartbeat(id, BTreeMap::new()).await.unwrap();
    assert_eq!(shown(id), "active");
    world.nodes.update(id, said("ONLINE")).await.unwrap();
    assert_eq!(shown(id), "online");
}

#[tokio::test]
async fn words_that_mean_no_new_work_are_known_in_any_case() {
    let world = World::new().await;
    let id = world.node().await;
    for status in ["draining", "Maintenance", " MAINTENANCE "] {
        world.nodes.update(id, said(status)).await.unwrap();
        assert_eq!(world.candidates("wasm").len(), 0, "{status}");
        assert_eq!(world.nodes.stats().active_nodes, 1, "counts go by liveness");
    }
    world.nodes.update(id, said("online")).await.unwrap();
    assert_eq!(world.candidates("wasm").len(), 1);
    assert_eq!(world.candidates("container").len(), 0, "only runtimes that it has");
}

#[tokio::test]
async fn an_update_is_no_sign_of_life() {
    let world = World::new().await;
    let id = world.node().await;
    world.pass(TIMEOUT - 1, &[]).await;
    world.nodes.update(id, said("active")).await.unwrap();
    world.pass(SWEEP + 2, &[]).await;
    assert_eq!(world.liveness(id), OFFLINE);
}

#[tokio::test]
async fn a_leaving_agent_gets_no_work_until_it_registers_again_and_an_operators_word_stays() {
    let world = World::new().await;
    let id = world.node().await;
    let again = Registration { id, ..registration("10.0.0.1") };
    world.nodes.leave(id, "draining").await.unwrap();
    assert_eq!(world.nodes.get(id).unwrap().status(), "draining");
    assert!(world.candidates("wasm").is_empty());
    world.nodes.leave(id, "offline").await.unwrap();
    assert_eq!(world.nodes.get(id).unwrap().status(), "offline");
    world.nodes.register(again.clone()).await.unwrap();
    assert_eq!((world.nodes.get(id).unwrap().status(), world.candidates("wasm").len()), ("online", 1));
    world.nodes.update(id, said("maintenance")).await.unwrap();
    world.nodes.leave(id, "offline").await.unwrap();
    world.nodes.register(again).await.unwrap();
    assert_eq!(world.nodes.get(id).unwrap().status(), "maintenance");
    assert_eq!(world.nodes.leave(id, "asleep").await.unwrap_err().errors[0].field, "status");
}

#[tokio::test]
async fn registering_again_keeps_the_id_takes_the_new_address_and_writes_only_news() {
    let world = World::new().await;
    let first = registration("10.0.0.1");
    let id = first.id;
    let node = world.nodes.register(first.clone()).await.unwrap();
    let written = world.rev();
    world.pass(60, &[]).await;
    world.nodes.register(first.clone()).await.unwrap();
    assert_eq!(world.rev(), written, "nothing new");
    world.pass(60, &[]).await;
    assert_eq!(world.liveness(id), ONLINE, "but a sign of life");
    let moved = world.nodes.register(Registration { ip_address: "10.0.0.2".into(), ..first }).await.unwrap();
    assert_eq!((moved.ip_address.as_str(), moved.registered_at), ("10.0.0.2", node.registered_at));
    assert_eq!(world.rev(), written + 1);
}

/// The same node, told by an agent that lives elsewhere.
fn at_home(first: &Registration, place: &str) -> Registration {
    let mut registration = first.clone();
    registration.metadata.insert(BOOT_KEY.to_owned(), place.to_owned());
    registration
}

#[tokio::test]
async fn a_copy_of_a_live_agent_is_refused_until_the_first_is_silent_or_has_left() {
    let mut world = World::new().await;
    let first = at_home(&registration("10.0.0.1"), "here");
    let (id, copy) = (first.id, at_home(&Registration { ip_address: "10.0.0.2".into(), ..first.clone() }, "there"));
    let refused = |ended: Result<Node, Fault>| {
        let fault = ended.unwrap_err();
        assert_eq!((fault.kind, &*fault.code), (ErrorKind::Conflict, "NODE_ID_IN_USE"), "{fault}");
        assert!(fault.message.contains("10.0.0.1:50052") && fault.message.contains("node-id"), "{fault}");
    };
    let beats = |place: &str| BTreeMap::from([(BOOT_KEY.to_owned(), place.to_owned())]);
    world.nodes.register(first.clone()).await.unwrap();
    refused(world.nodes.register(copy.clone()).await);
    world.pass(TIMEOUT - 1, &[]).await;
    refused(world.nodes.register(copy.clone()).await);
    // A start in the same place takes over at once; who says nothing of a place is an operator.
    world.nodes.register(first.clone()).await.unwrap();
    world.nodes.heartbeat(id, beats("here")).await.unwrap();
    world.nodes.register(Registration { metadata: registration("x").metadata, ..first.clone() }).await.unwrap();
    world.nodes.register(first.clone()).await.unwrap();
    // Silent for longer than the timeout, though no sweep has said so yet.
    world.clock.advance(Duration::from_secs(TIMEOUT + 1));
    world.nodes.register(copy.clone()).await.unwrap();
    // Now it is the first that is one too many: its heartbeats are not taken for the copy's.
    let fault = world.nodes.heartbeat(id, beats("here")).await.unwrap_err();
    assert_eq!(fault.code, "NODE_ID_IN_USE", "{fault}");
    world.nodes.heartbeat(id, beats("there")).await.unwrap();
    assert_eq!(world.nodes.register(first.clone()).await.unwrap_err().code, "NODE_ID_IN_USE");
    world.nodes.leave(id, "draining").await.unwrap();
    world.nodes.register(first.clone()).await.unwrap();
    // After a start of the registry nobody has been heard of: whoever comes first is it.
    world.restart().await;
    world.nodes.register(copy).await.unwrap();
    assert_eq!(world.nodes.register(first).await.unwrap_err().code, "NODE_ID_IN_USE");
}

#[tokio::test]
async fn the_time_of_the_last_heartbeat_is_shown_though_it_is_not_written() {
    let world = World::new().await;
    let id = world.node().await;
    world.pass(50, &[]).await;
    let now = world.clock.wall();
    world.nodes.heartbeat(id, BTreeMap::new()).await.unwrap();
    assert_eq!(world.nodes.view(id).unwrap().last_heartbeat, now);
    let page = Page::parse("nodes", (None, None, None), MOST).unwrap();
    assert_eq!(world.nodes.list(None, &page).unwrap().items[0].last_heartbeat, now);
}

#[tokio::test]
async fn the_list_is_filtered_by_what_is_shown_and_counts_what_it_filtered() {
    let world = World::new().await;
    let [a, _, c] = world.nodes::<3>().await;
    world.nodes.update(a, said("maintenance")).await.unwrap();
    world.nodes.leave(c, "offline").await.unwrap();
    let page = Page::parse("nodes", (Some(1), None, None), MOST).unwrap();
    for (status, total) in
        [(None, 3), (Some("maintenance"), 1), (Some("offline"), 1), (Some("online"), 1), (Some("x"), 0)]
    {
        let cut = world.nodes.list(status, &page).unwrap();
        assert_eq!((cut.total, cut.items.len()), (total, total.min(1)), "{status:?}");
        assert_eq!(cut.next.is_some(), total > 1, "{status:?}");
    }
}

#[tokio::test]
async fn loads_are_of_registered_nodes_only_and_must_be_measures() {
    let world = World::new().await;
    let id = world.node().await;
    let unknown = world.nodes.update_resource(NodeId::new(), NodeResource::default()).await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::NotFound);
    for wrong in [f64::NAN, f64::INFINITY, -1.0] {
        let load = NodeResource { load_average_5m: wrong, ..NodeResource::default() };
        assert_eq!(world.nodes.update_resource(id, load).await.unwrap_err().errors[0].field, "load_average_5m");
    }
    let load = NodeResource { used_memory_bytes: -1, ..NodeResource::default() };
    assert_eq!(world.nodes.update_resource(id, load).await.unwrap_err().errors[0].field, "used_memory_bytes");
    world.nodes.update_resource(id, NodeResource::default()).await.unwrap();
    assert_eq!(world.nodes.resource(id).unwrap().updated_at, world.clock.wall());
    world.nodes.delete(id).await.unwrap();
    assert_eq!(world.nodes.resource(id), None);
}

#[tokio::test]
async fn the_statistics_average_over_live_nodes_that_told_their_load() {
    let world = World::new().await;
    let [a, b, c, _] = world.nodes::<4>().await;
    for (id, cpu, memory) in [(a, 90.0, 10.0), (b, 10.0, 50.0), (c, 100.0, 100.0)] {
        let load = NodeResource {
            cpu_usage_percent: cpu,
            memory_usage_percent: memory,
            total_memory_bytes: 100,
            used_memory_bytes: 10,
            ..NodeResource::default()
        };
        world.nodes.update_resource(id, load).await.unwrap();
    }
    world.nodes.leave(c, "offline").await.unwrap();
    world.nodes.update(b, said("unhealthy")).await.unwrap();
    let stats = world.nodes.stats();
    assert_eq!((stats.total_nodes, stats.active_nodes, stats.inactive_nodes), (4, 3, 1));
    assert_eq!((stats.unhealthy_nodes, stats.nodes_with_resources, stats.high_load_nodes), (1, 2, 1));
    assert_eq!((stats.average_cpu_usage, stats.average_memory_usage), (50.0, 30.0));
    assert_eq!((stats.total_memory_bytes, stats.total_used_memory_bytes), (200, 20));
}

#[tokio::test]
async fn what_is_told_of_a_node_is_bounded_and_the_fault_names_the_field() {
    let world = World::new().await;
    let many: BTreeMap<_, _> = (0..65).map(|n| (n.to_string(), String::new())).collect();
    let long = BTreeMap::from([("k".to_owned(), "v".repeat(1025))]);
    let key = BTreeMap::from([("k".repeat(129), String::new())]);
    for (metadata, field) in [(many, "metadata"), (long, "metadata.k"), (key, "metadata")] {
        let fault = world.nodes.register(Registration { metadata, ..registration("h") }).await.unwrap_err();
        assert_eq!(fault.errors[0].field, field);
    }
    for address in ["", "a b", "x\n", &"x".repeat(254), "<script>"] {
        let fault = world.nodes.register(registration(address)).await.unwrap_err();
        assert_eq!(fault.errors[0].field, "ip_address", "{address:?}");
    }
    for address in ["192.168.1.100", "::1", "fe80::1%eth0", "node-1.example.org", "my_host"] {
        world.nodes.register(registration(address)).await.unwrap();
    }
    let id = world.node().await;
    let health = BTreeMap::from([("k".to_owned(), "v".repeat(4096))]);
    assert_eq!(world.nodes.heartbeat(id, health).await.unwrap_err().errors[0].field, "health_info");
    for status in ["", "  ", "a\u{0}b", &"x".repeat(65)] {
        assert_eq!(word("status", status).unwrap_err().errors[0].field, "status", "{status:?}");
    }
}

#[tokio::test]
async fn writers_of_one_node_at_once_all_take_effect_or_say_why() {
    let world = World::new().await;
    let id = world.node().await;
    let updates = (0..32u16).map(|n| {
        let update = if n % 2 == 0 { said("active") } else { Update { port: Some(n), ..Update::default() } };
        world.nodes.update(id, update)
    });
    for done in futures_util::future::join_all(updates).await {
        done.unwrap();
    }
    let node = world.nodes.get(id).unwrap();
    assert_eq!((node.status(), node.port % 2), ("active", 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_at_the_moment_a_node_is_marked_is_never_lost() {
    let world = World::new().await;
    let id = world.node().await;
    for round in 0..200 {
        world.clock.advance(Duration::from_secs(TIMEOUT + 1));
        // The one named first runs first, up to where it waits for the disk.
        let beat = if round % 2 == 0 {
            tokio::join!(world.nodes.mark_offline(id), world.nodes.heartbeat(id, BTreeMap::new())).1
        } else {
            tokio::join!(world.nodes.heartbeat(id, BTreeMap::new()), world.nodes.mark_offline(id)).0
        };
        beat.unwrap();
        assert_eq!(world.liveness(id), ONLINE, "round {round}");
    }
}

#[tokio::test]
async fn the_same_id_registered_by_many_at_once_is_one_node() {
    let world = World::new().await;
    let id = NodeId::new();
    let all = (0..16).map(|n| world.nodes.register(Registration { id, ..registration(&format!("10.0.0.{n}")) }));
    for done in futures_util::future::join_all(all).await {
        assert_eq!(done.unwrap().id, id);
    }
    assert_eq!(world.nodes.stats().total_nodes, 1);
}

#[test]
fn the_record_on_disk_keeps_its_released_shape() {
    let least = r#"{"id":"01a1fdf4-f8b4-744f-8bce-bb34bfa9a1f3","ip_address":"h","port":1,"registered_at":1,"last_heartbeat":2}"#;
    let node: types::Node = serde_json::from_str(least).unwrap();
    assert_eq!((node.status(), node.http_port, node.leaving), ("online", 0, false));
    let released = concat!(
        r#"{"id":"01a1fdf4-f8b4-744f-8bce-bb34bfa9a1f3","ip_address":"h","port":1,"http_port":2,"metadata":{"a":"b"},"#,
        r#""liveness":"offline","status_override":"maintenance","leaving":true,"registered_at":1,"last_heartbeat":2}"#
    );
    let node: types::Node = serde_json::from_str(released).unwrap();
    assert_eq!(serde_json::to_string(&node).unwrap(), released);
}

#[test]
fn many_nodes_are_told_to_be_slower_and_given_time_accordingly() {
    let rules = Rules {
        timeout: Duration::from_secs(90),
        sweep_every: Duration::from_secs(30),
        remove_after: Duration::from_secs(86_400),
        interval: Duration::from_secs(10),
    };
    let mut pulses = Pulses::new(rules, Duration::ZERO);
    assert_eq!(pulses.pace(), Duration::from_secs(10));
    let ids: Vec<_> = (0..100_000u128).map(|n| NodeId(uuid::Uuid::from_u128(n))).collect();
    for id in &ids {
        pulses.register(*id, Duration::ZERO, Timestamp(0));
    }
    assert_eq!(pulses.pace(), Duration::from_secs(50), "2000 heartbeats a second");
    // Told 50 s, scattered up to 62.5 s: one lost heartbeat must not kill.
    assert!(!pulses.is_silent(ids[0], Duration::from_secs(126)));
    assert!(pulses.is_silent(ids[0], Duration::from_secs(201)));
}

#[test]
fn the_pace_is_never_slower_than_a_third_of_the_timeout() {
    let rules = Rules {
        timeout: Duration::from_secs(9),
        sweep_every: Duration::from_secs(1),
        remove_after: Duration::from_secs(60),
        interval: Duration::from_secs(30),
    };
    assert_eq!(Pulses::new(rules, Duration::ZERO).pace(), Duration::from_secs(3));
}
