//! How busy the machine is: processors, memory, load, network, and the disk of the data directory.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use sysinfo::{Networks, System};
use types::{NodeResource, Timestamp};

/// A source that this machine does not offer is none; its figures are 0.
struct Sources {
    system: Option<System>,
    networks: Option<Networks>,
    /// When the counters were last read, monotonic.
    read_at: Option<Duration>,
}

/// Reads the machine's load. Processor and network figures are averages since the reading before.
#[derive(Clone)]
pub(crate) struct Load {
    sources: Arc<Mutex<Sources>>,
    data_dir: PathBuf,
}

impl Load {
    /// With a first reading, so that the next one has something to compare with.
    pub(crate) fn new(data_dir: PathBuf) -> Self {
        let mut system = System::new().inspect_err(|error| warn("processors and memory", error)).ok();
        if let Some(system) = &mut system {
            system.refresh_cpu_usage();
        }
        let networks = Networks::new_with_refreshed_list().inspect_err(|error| warn("network", error)).ok();
        let sources = Sources { system, networks, read_at: None };
        Self { sources: Arc::new(Mutex::new(sources)), data_dir }
    }

    /// The load at `now` (monotonic); none when the reading thread failed. A disk that hangs hangs only this.
    pub(crate) async fn read(&self, now: Duration, wall: Timestamp) -> Option<NodeResource> {
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || this.read_blocking(now, wall)).await;
        read.inspect_err(|error| tracing::warn!(%error, "cannot read the machine's load")).ok()
    }

    fn read_blocking(&self, now: Duration, wall: Timestamp) -> NodeResource {
        let mut sources = self.sources.lock().unwrap_or_else(|broken| broken.into_inner());
        let since = sources.read_at.replace(now).map_or(Duration::ZERO, |before| now.saturating_sub(before));
        let (mut cpu, mut total, mut used, mut available) = (0.0, 0, 0, 0);
        if let Some(system) = &mut sources.system {
            system.refresh_cpu_usage();
            system.refresh_memory();
            cpu = f64::from(system.global_cpu_usage());
            (total, used, available) = (system.total_memory(), system.used_memory(), system.available_memory());
        }
        let (mut received, mut sent) = (0, 0);
        if let Some(networks) = &mut sources.networks {
            networks.refresh(true);
            for (_, network) in networks.iter().filter(|(name, _)| name.to_str() != Some("lo")) {
                received += network.received();
                sent += network.transmitted();
            }
        }
        let average = System::load_average().inspect_err(|error| warn("load average", error)).ok();
        let (disk_total, disk_used) = disk(&self.data_dir);
        NodeResource {
            cpu_usage_percent: cpu,
            memory_usage_percent: percent(used, total),
            total_memory_bytes: signed(total),
            used_memory_bytes: signed(used),
            available_memory_bytes: signed(available),
            disk_usage_percent: percent(disk_used, disk_total),
            total_disk_bytes: signed(disk_total),
            used_disk_bytes: signed(disk_used),
            network_rx_bytes_per_sec: per_second(received, since),
            network_tx_bytes_per_sec: per_second(sent, since),
            load_average_1m: average.as_ref().map_or(0.0, |average| average.one),
            load_average_5m: average.as_ref().map_or(0.0, |average| average.five),
            load_average_15m: average.as_ref().map_or(0.0, |average| average.fifteen),
            updated_at: wall,
            resource_metadata: Default::default(),
        }
    }
}

fn warn(what: &str, error: &sysinfo::Error) {
    tracing::warn!(%error, what, "cannot read the machine's load");
}

/// Bytes of the file system that holds `path`, in all and in use.
fn disk(path: &Path) -> (u64, u64) {
    match rustix::fs::statvfs(path) {
        Ok(found) => {
            let total = found.f_blocks.saturating_mul(found.f_frsize);
            (total, total.saturating_sub(found.f_bfree.saturating_mul(found.f_frsize)))
        }
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "cannot read how full the disk is");
            (0, 0)
        }
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn per_second(bytes: u64, over: Duration) -> i64 {
    if over.is_zero() { 0 } else { (bytes as f64 / over.as_secs_f64()) as i64 }
}
