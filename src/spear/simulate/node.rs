//! One simulated node: who it is, and its two halves.

use api::{Control, Registration};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;
use types::{Clock, NodeId, node::RUNTIMES_KEY};

use super::{Figures, Plan};

/// The kind of the runtime that is faked.
const RUNTIME: &str = "wasm";

/// A node that does not exist.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) plan: Arc<Plan>,
    pub(super) control: Arc<dyn Control>,
    pub(super) figures: Arc<Figures>,
    pub(super) clock: Arc<dyn Clock>,
    /// Does it run anything?
    works: bool,
    number: usize,
}

impl Node {
    pub(super) fn new(
        number: usize,
        plan: Arc<Plan>,
        control: Arc<dyn Control>,
        figures: Arc<Figures>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let works = number < plan.workers;
        Self { id: NodeId::new(), plan, control, figures, clock, works, number }
    }

    /// What it tells of itself: as much as a real one does.
    pub(super) fn registration(&self) -> Registration {
        let runtimes = if self.works { RUNTIME } else { "" };
        let metadata = BTreeMap::from([
            ("name".to_owned(), format!("simulated-{}", self.number)),
            (RUNTIMES_KEY.to_owned(), runtimes.to_owned()),
            ("spear.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("spear.boot_id".to_owned(), self.id.to_string()),
        ]);
        // Out of a block that is set aside for measuring (RFC 2544); nobody connects to it.
        let [_, _, high, low] = u32::try_from(self.number).unwrap_or(u32::MAX).to_be_bytes();
        Registration { id: self.id, ip_address: format!("198.18.{high}.{low}"), port: 50052, http_port: 8081, metadata }
    }

    /// Lives for ever.
    pub(super) async fn live(self) {
        tokio::time::sleep(self.delay()).await;
        let up = watch::Sender::new(0);
        let seen = up.subscribe();
        let present = self.keep_present(&up);
        if self.works {
            tokio::join!(present, self.keep_working(seen));
        } else {
            present.await;
        }
    }

    /// Its place in the time within which the nodes appear.
    fn delay(&self) -> Duration {
        let part = self.number as f64 / self.plan.nodes.max(1) as f64;
        self.plan.ramp.mul_f64(part)
    }
}
