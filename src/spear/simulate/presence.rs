//! The half of a node that is there: registers, beats and tells its load, as `spearlet/agent/heartbeat.rs` does.

use std::{collections::BTreeMap, time::Duration};
use supervise::backoff;
use tokio::sync::watch;
use types::{Fault, NodeResource};

use super::node::Node;

/// The first pause after a contact that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest.
const SLOWEST: Duration = Duration::from_secs(7);
/// A registry that asks for a faster pace than this is not obeyed.
const FASTEST: Duration = Duration::from_millis(50);

impl Node {
    /// Never ends; `up` moves with every registration.
    pub(super) async fn keep_present(&self, up: &watch::Sender<u64>) {
        let (mut registered, mut tries) = (false, 0u32);
        loop {
            let pause = match self.contact(&mut registered, up).await {
                Ok(asked) => {
                    tries = 0;
                    self.pace(asked)
                }
                Err(fault) => {
                    self.figures.failed(&fault);
                    if std::mem::take(&mut registered) {
                        self.figures.lost();
                    }
                    tries = tries.saturating_add(1);
                    backoff(FIRST_PAUSE, SLOWEST, tries - 1)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn contact(&self, registered: &mut bool, up: &watch::Sender<u64>) -> Result<Duration, Fault> {
        if !*registered {
            self.register(registered, up).await?;
        }
        let asked = match self.beat().await {
            Err(fault) if fault.code == "NODE_NOT_FOUND" => {
                self.figures.forgotten();
                *registered = false;
                self.figures.lost();
                self.register(registered, up).await?;
                self.beat().await?
            }
            answer => answer?,
        };
        // A real agent does not mind either when this fails: the next one tells it again.
        drop(self.control.update_resource(self.id, self.load()).await);
        Ok(asked)
    }

    async fn register(&self, registered: &mut bool, up: &watch::Sender<u64>) -> Result<(), Fault> {
        let begun = self.clock.monotonic();
        self.control.register_node(self.registration()).await?;
        self.figures.registered(begun, self.clock.monotonic());
        *registered = true;
        up.send_modify(|times| *times += 1);
        Ok(())
    }

    async fn beat(&self) -> Result<Duration, Fault> {
        let health = BTreeMap::from([("running".to_owned(), "0".to_owned()), ("waiting".to_owned(), "0".to_owned())]);
        let begun = self.clock.monotonic();
        let answer = self.control.heartbeat(self.id, health).await;
        let took = self.clock.monotonic().saturating_sub(begun);
        self.figures.beat(took, answer.is_ok());
        Ok(answer?.next_heartbeat)
    }

    /// As long as the registry asks for, with its scatter; where it asks for longer than planned, scattered here.
    fn pace(&self, asked: Duration) -> Duration {
        let most = self.plan.interval * 5 / 4;
        let full =
            if asked.is_zero() || asked > most { backoff(self.plan.interval, self.plan.interval, 0) } else { asked };
        full.max(FASTEST)
    }

    /// A machine that is a little busy.
    fn load(&self) -> NodeResource {
        const GIB: i64 = 1 << 30;
        NodeResource {
            cpu_usage_percent: 12.5,
            memory_usage_percent: 25.0,
            total_memory_bytes: 16 * GIB,
            used_memory_bytes: 4 * GIB,
            available_memory_bytes: 12 * GIB,
            disk_usage_percent: 40.0,
            total_disk_bytes: 100 * GIB,
            used_disk_bytes: 40 * GIB,
            network_rx_bytes_per_sec: 2048,
            network_tx_bytes_per_sec: 1024,
            load_average_1m: 0.5,
            load_average_5m: 0.4,
            load_average_15m: 0.3,
            ..NodeResource::default()
        }
    }
}
