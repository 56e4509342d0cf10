//! What can be done with nodes.

use api::Registration;
use bus::{Bus, Mirror};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use store::{Batch, Guard, Rev, Store, Table};
use supervise::{Live, Scope};
use telemetry::Slot;
use tokio::sync::watch;
use types::{Clock, Fault, Keyed, Liveness, Node, NodeId, NodeResource};

use super::{
    figures::Figures,
    home,
    liveness::{Pulses, Rules},
    records::{self, NodeBeat, Word},
    stats::ClusterStats,
    sweep,
    touched::Touched,
};
use crate::{
    Config,
    groups::Groups,
    page::{Cut, Order, Page},
};

/// Tries against other writers of the same record.
const TRIES: usize = 64;

/// Nodes of the registry.
pub struct Service {
    store: Store,
    table: Table<Node>,
    pub(super) nodes: Mirror<Node>,
    pulses: Mutex<Pulses>,
    /// Load as last told; of registered nodes only.
    resources: Mutex<BTreeMap<NodeId, NodeResource>>,
    touched: Arc<Touched>,
    /// By the status they show, in lower case.
    shown: Arc<Mutex<Shown>>,
    bus: Bus,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) figures: Slot<Figures>,
}

/// A change of a node by an operator; what is none stays.
#[derive(Clone, Debug, Default)]
pub(super) struct Update {
    pub ip_address: Option<String>,
    pub port: Option<u16>,
    pub http_port: Option<u16>,
    pub metadata: Option<BTreeMap<String, String>>,
    pub status: Option<Word>,
}

type Shown = Groups<Arc<str>, NodeId>;

fn locked(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(|broken| broken.into_inner())
}

pub(super) fn rules(config: &Config) -> Rules {
    Rules {
        timeout: config.heartbeat_timeout,
        sweep_every: config.cleanup_interval,
        remove_after: config.remove_after,
        interval: config.heartbeat_interval,
    }
}

pub(super) fn not_found(id: NodeId) -> Fault {
    Fault::not_found("NODE_NOT_FOUND", format!("no node {id} is registered"))
}

impl Service {
    /// Reads the nodes and watches over them in `scope`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(
        store: &Store,
        bus: &Bus,
        clock: Arc<dyn Clock>,
        config: Live<Config>,
        scope: &Scope,
    ) -> Result<Arc<Self>, Fault> {
        let touched = Arc::new(Touched::default());
        let shown = Arc::new(Mutex::new(Shown::default()));
        let (changed, groups) = (touched.clone(), shown.clone());
        let told = Arc::new(move |id: &str, node: Option<&Arc<Node>>| {
            if let Ok(id) = id.parse() {
                changed.add(id);
                locked(&groups).set(id, node.map(|node| node.status().to_ascii_lowercase().into()));
            }
        });
        let nodes = bus.mirror_telling::<Node, Arc<Node>>(scope, |node| node, told);
        let nodes = nodes.await.map_err(crate::bus_fault)?;
        let now = clock.monotonic();
        let mut pulses = Pulses::new(rules(&config.get()), now);
        for node in nodes.read().values() {
            pulses.adopt(node.id, now, node.last_heartbeat);
        }
        let service = Arc::new(Self {
            store: store.clone(),
            table: Table::new(store),
            nodes,
            pulses: Mutex::new(pulses),
            resources: Mutex::default(),
            touched,
            shown,
            bus: bus.clone(),
            clock,
            figures: Slot::default(),
        });
        sweep::start(&service, config, scope);
        Ok(service)
    }

    pub(super) fn pulses(&self) -> MutexGuard<'_, Pulses> {
        self.pulses.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    fn resources(&self) -> MutexGuard<'_, BTreeMap<NodeId, NodeResource>> {
        self.resources.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Registers a node, or takes it up again under the id it kept: its first registration and an operator's
    /// word stay, all else is as told now.
    ///
    /// # Errors
    /// Names the field that is wrong; when the store fails.
    pub async fn register(&self, registration: Registration) -> Result<Node, Fault> {
        self.put(registration, None).await
    }

    /// The same, with an operator's word.
    pub(super) async fn put(&self, registration: Registration, word: Option<Word>) -> Result<Node, Fault> {
        records::registration(&registration)?;
        let id = registration.id;
        for _ in 0..TRIES {
            let now = self.clock.wall();
            // Most registrations are of new nodes, and the mirror knows without a look at the disk; should it
            // not know yet, the insertion is refused.
            let found = if self.get(id).is_some() { self.table.get(&id).await? } else { None };
            if let Some(found) = &found {
                let heard = self.pulses().alive(id, self.clock.monotonic());
                home::may_register(&found.record, &registration.metadata, heard)?;
            }
            let node = records::told(&registration, word.as_ref(), found.as_ref().map(|found| &found.record), now);
            let committed = match found {
                None => self.table.insert(&node, Batch::new()).await,
                // After an outage of ours every agent comes back: what is known already needs no write.
                Some(found) if (Node { last_heartbeat: now, ..found.record.clone() }) == node => Ok(found.modified),
                Some(found) => {
                    let batch = Batch::new().guard(Guard::At(node.key(), found.modified));
                    self.store.commit(batch.put(node.key(), store::encode(&node)?)).await
                }
            };
            match committed {
                Ok(rev) => {
                    self.nodes.reached(rev).await;
                    self.pulses().register(id, self.clock.monotonic(), now);
                    self.figures.see(|figures| figures.registrations.inc());
                    return Ok(self.shown(&node));
                }
                // Somebody else was faster: wait until the mirror shows who.
                Err(store::Error::Conflict(conflict)) => self.nodes.reached(conflict.actual.unwrap_or(0)).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(busy(id))
    }

    /// A sign of life; answers when to give the next.
    ///
    /// # Errors
    /// `NODE_NOT_FOUND`: the node must register again. `NODE_ID_IN_USE`: another agent has registered under this id.
    pub async fn heartbeat(&self, id: NodeId, health: BTreeMap<String, String>) -> Result<Duration, Fault> {
        records::health(&health)?;
        let node = self.get(id).ok_or_else(|| not_found(id))?;
        let now = self.clock.monotonic();
        let heard = self.pulses().alive(id, now);
        home::may_beat(&node, &health, heard)?;
        self.pulses().beat(id, now, self.clock.wall());
        if node.liveness == Liveness::Offline {
            tracing::info!(node = %id, "node is back");
            self.set_liveness(id, Liveness::Online, |_| true).await?;
        }
        self.figures.see(|figures| figures.heartbeats.inc());
        self.bus.emit(NodeBeat { node: id, health });
        Ok(self.next_heartbeat())
    }

    /// When an agent shall give its next sign of life: stretched while there are many, scattered by a quarter.
    pub fn next_heartbeat(&self) -> Duration {
        let pace = self.pulses().pace();
        supervise::backoff(pace, pace, 0)
    }

    /// Takes note of a node's load. In memory only.
    ///
    /// # Errors
    /// `NODE_NOT_FOUND`, or names the field that is wrong.
    pub async fn update_resource(&self, id: NodeId, mut resource: NodeResource) -> Result<(), Fault> {
        records::resource(&resource)?;
        resource.updated_at = self.clock.wall();
        let mut resources = self.resources();
        // Asked under the lock: a node that is removed now takes its load with it.
        if self.get(id).is_none() {
            return Err(not_found(id));
        }
        let busy = busy_percent(Some(&resource));
        let before = resources.insert(id, resource);
        drop(resources);
        if busy_percent(before.as_ref()) != busy {
            self.touched.add(id);
        }
        Ok(())
    }

    /// An agent says that it stops (`draining`) or has stopped (`offline`).
    ///
    /// # Errors
    /// `NODE_NOT_FOUND`; another word.
    pub async fn leave(&self, id: NodeId, status: &str) -> Result<(), Fault> {
        match status {
            "draining" => {
                let changed = self
                    .table
                    .update(&id, |node, _| {
                        let new = !node.leaving;
                        node.leaving = true;
                        Ok::<_, store::Error>(new)
                    })
                    .await?;
                self.seen(changed.ok_or_else(|| not_found(id))?.1).await;
                Ok(())
            }
            "offline" => self.set_liveness(id, Liveness::Offline, |_| true).await,
            other => {
                let other = types::id::clip(other);
                Err(Fault::invalid_field("status", format!("{other:?} is neither draining nor offline")))
            }
        }
    }

    /// Changes what an operator may change. Not a sign of life.
    pub(super) async fn update(&self, id: NodeId, update: Update) -> Result<Node, Fault> {
        if let Some(address) = &update.ip_address {
            records::address("ip_address", address)?;
        }
        if let Some(metadata) = &update.metadata {
            records::labels("metadata", metadata)?;
        }
        let changed = self
            .table
            .update(&id, |node, _| {
                let before = node.clone();
                if let Some(address) = &update.ip_address {
                    node.ip_address.clone_from(address);
                }
                node.port = update.port.unwrap_or(node.port);
                node.http_port = update.http_port.unwrap_or(node.http_port);
                if let Some(metadata) = &update.metadata {
                    node.metadata.clone_from(metadata);
                }
                match &update.status {
                    None => {}
                    Some(Word::Clear) => node.status_override = None,
                    Some(Word::Set(word)) => node.status_override = Some(word.clone()),
                }
                Ok::<_, store::Error>(*node != before)
            })
            .await?;
        let (node, rev) = changed.ok_or_else(|| not_found(id))?;
        self.seen(rev).await;
        Ok(self.shown(&node))
    }

    /// Removes a node and its load.
    ///
    /// # Errors
    /// `NODE_NOT_FOUND`; when the store fails.
    pub async fn delete(&self, id: NodeId) -> Result<(), Fault> {
        if self.remove(id, |_| true).await? { Ok(()) } else { Err(not_found(id)) }
    }

    /// Removes a node if it still is as `judge` wants it.
    pub(super) async fn remove(&self, id: NodeId, judge: impl Fn(&Node) -> bool) -> Result<bool, Fault> {
        for _ in 0..TRIES {
            let Some(found) = self.table.get(&id).await? else { return Ok(false) };
            if !judge(&found.record) {
                return Ok(false);
            }
            let key = found.record.key();
            match self.store.commit(Batch::new().guard(Guard::At(key.clone(), found.modified)).delete(key)).await {
                Ok(rev) => {
                    self.nodes.reached(rev).await;
                    self.pulses().forget(id);
                    self.resources().remove(&id);
                    return Ok(true);
                }
                Err(store::Error::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(busy(id))
    }

    /// Writes a transition, if `judge` still wants it when the record is at hand.
    pub(super) async fn set_liveness(
        &self,
        id: NodeId,
        to: Liveness,
        judge: impl Fn(&Self) -> bool,
    ) -> Result<(), Fault> {
        let heard = self.pulses().heard_at(id);
        let changed = self
            .table
            .update(&id, |node, _| {
                if node.liveness == to || !judge(self) {
                    return Ok::<_, store::Error>(false);
                }
                node.liveness = to;
                node.last_heartbeat = heard.unwrap_or(node.last_heartbeat);
                // Its agent has ended: whatever it comes back as is not the one that was leaving.
                node.leaving &= to == Liveness::Online;
                Ok(true)
            })
            .await?;
        self.seen(changed.ok_or_else(|| not_found(id))?.1).await;
        Ok(())
    }

    async fn seen(&self, rev: Option<Rev>) {
        if let Some(rev) = rev {
            self.nodes.reached(rev).await;
        }
    }

    /// A node.
    pub fn get(&self, id: NodeId) -> Option<Arc<Node>> {
        self.nodes.get(&id.to_string())
    }

    /// A node with the time it was really heard of last.
    pub(super) fn view(&self, id: NodeId) -> Result<Node, Fault> {
        self.get(id).map(|node| self.shown(&node)).ok_or_else(|| not_found(id))
    }

    fn shown(&self, node: &Node) -> Node {
        let mut shown = node.clone();
        if let Some(heard) = self.pulses().heard_at(node.id) {
            shown.last_heartbeat = heard;
        }
        shown
    }

    /// Nodes in the order of their ids, which for those we named is the order of registration; `status` is what
    /// they show.
    ///
    /// # Errors
    /// The cursor is of another list.
    pub(super) fn list(&self, status: Option<&str>, page: &Page) -> Result<Cut<Node>, Fault> {
        let cut = {
            let nodes = self.nodes.read();
            match status {
                None => page.of(Order::Rising, &nodes)?.map(|(_, node)| node.clone()),
                Some(status) => {
                    let (shown, none) = (locked(&self.shown), BTreeSet::new());
                    let group = shown.get(status.to_ascii_lowercase().as_str()).unwrap_or(&none);
                    page.among(group, |id| nodes.get(&id.to_string()).cloned())?
                }
            }
        };
        Ok(cut.map(|node| self.shown(&node)))
    }

    /// All nodes that show a status.
    pub(super) fn all(&self, status: Option<&str>) -> Vec<Node> {
        let nodes: Vec<_> = self.nodes.read().values().cloned().collect();
        let wanted = nodes.iter().filter(|node| status.is_none_or(|status| node.status().eq_ignore_ascii_case(status)));
        wanted.map(|node| self.shown(node)).collect()
    }

    /// A node's load as last told.
    pub fn resource(&self, id: NodeId) -> Option<NodeResource> {
        self.resources().get(&id).cloned()
    }

    /// Loads, in the order of their nodes' ids; of these nodes, or of all.
    ///
    /// # Errors
    /// The cursor is of another list.
    pub(super) fn list_resources(
        &self,
        of: Option<&[NodeId]>,
        page: &Page,
    ) -> Result<Cut<(NodeId, NodeResource)>, Fault> {
        let resources = self.resources();
        let Some(of) = of else {
            return Ok(page.of(Order::Rising, &resources)?.map(|(id, resource)| (*id, resource.clone())));
        };
        let wanted: BTreeMap<NodeId, &NodeResource> =
            of.iter().filter_map(|id| Some((*id, resources.get(id)?))).collect();
        Ok(page.of(Order::Rising, &wanted)?.map(|(id, resource)| (*id, NodeResource::clone(resource))))
    }

    /// Loads of these nodes, or of all.
    pub(super) fn all_resources(&self, of: &[NodeId]) -> Vec<(NodeId, NodeResource)> {
        let resources = self.resources();
        if of.is_empty() {
            return resources.iter().map(|(id, resource)| (*id, resource.clone())).collect();
        }
        of.iter().filter_map(|id| Some((*id, resources.get(id)?.clone()))).collect()
    }

    /// A node, if it may get new work.
    pub(crate) fn takes_work(&self, id: NodeId) -> Option<Arc<Node>> {
        self.get(id).filter(|node| node.takes_work())
    }

    /// How busy a node is, in whole percent: finer differences are noise. One that has not told counts as busy.
    pub(crate) fn busy_percent(&self, id: NodeId) -> u8 {
        busy_percent(self.resources().get(&id))
    }

    /// Nodes of which a record, the load or the work has changed.
    pub(crate) fn touched(&self) -> &Arc<Touched> {
        &self.touched
    }

    /// Moves when any node has changed.
    pub fn watch(&self) -> watch::Receiver<Rev> {
        self.nodes.watch()
    }

    /// All nodes, as long as the answer is held.
    pub(super) fn live(&self) -> impl std::ops::Deref<Target = BTreeMap<String, Arc<Node>>> + '_ {
        self.nodes.read()
    }

    /// The longest that an online node has been silent.
    pub(super) fn longest_silence(&self) -> Duration {
        let online: Vec<_> = {
            let nodes = self.nodes.read();
            nodes.values().filter(|node| node.liveness == Liveness::Online).map(|node| node.id).collect()
        };
        self.pulses().longest_silence(&online, self.clock.monotonic())
    }

    /// Did so many nodes fall silent at once that nobody's work may be taken away now?
    pub fn braked(&self) -> bool {
        self.pulses().braked()
    }

    /// The nodes in numbers.
    pub fn stats(&self) -> ClusterStats {
        let (frozen, nodes) = (self.braked(), self.nodes.read().values().cloned().collect::<Vec<_>>());
        ClusterStats::of(&nodes, &self.resources(), frozen)
    }
}

fn busy_percent(told: Option<&NodeResource>) -> u8 {
    told.map_or(100.0, |told| told.cpu_usage_percent.max(told.memory_usage_percent)).clamp(0.0, 100.0) as u8
}

fn busy(id: NodeId) -> Fault {
    Fault::conflict("NODE_BUSY", format!("node {id} is being changed by others all the time; try again"))
}
