//! What the node tells of itself when it registers.

use api::control::Registration;
use runtime::Runtimes;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};
use types::{
    NodeId,
    node::{BOOT_KEY, RUNTIMES_KEY},
};
use uuid::Uuid;

use crate::{Addresses, Config};

/// Patience for one runtime to say whether it is usable.
const FINGERPRINT: Duration = Duration::from_secs(5);

/// The registration of this process; `boot` tells where the node lives, see [`place`].
pub(crate) async fn registration(
    id: NodeId,
    config: &Config,
    addresses: Addresses,
    runtimes: &Runtimes,
    boot: Uuid,
) -> Registration {
    let metadata = BTreeMap::from([
        ("name".to_owned(), config.node_name.clone()),
        (RUNTIMES_KEY.to_owned(), usable(runtimes).await.join(",")),
        ("spear.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        (BOOT_KEY.to_owned(), boot.to_string()),
    ]);
    Registration {
        id,
        ip_address: match &config.advertise_ip {
            Some(address) => address.clone(),
            None => advertised(addresses.grpc.ip(), &config.sms_address).to_string(),
        },
        port: addresses.grpc.port(),
        http_port: addresses.http.port(),
        metadata,
    }
}

/// Where this agent lives: one boot of one kernel, and one directory in it. Every start there has the same; a copy of
/// the directory or of the whole machine has another. The directory is locked, so two that have the same cannot run
/// at once.
pub(crate) fn place(data_dir: &Path) -> Uuid {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let host = rustix::system::uname();
    let directory = std::fs::metadata(data_dir).map(|directory| (directory.dev(), directory.ino()));
    let (device, inode) = directory.unwrap_or_default();
    let text = format!("{} {} {device} {inode}", kernel.trim(), host.nodename().to_string_lossy());
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(Sha256::digest(text.as_bytes())).for_each(|(to, from)| *to = from);
    Uuid::from_bytes(bytes)
}

/// The kinds of the runtimes that can be used here.
async fn usable(runtimes: &Runtimes) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    for kind in runtimes.kinds() {
        let Some(runtime) = runtimes.get(kind) else { continue };
        match tokio::time::timeout(FINGERPRINT, runtime.fingerprint()).await {
            Ok(found) if found.available => kinds.push(kind),
            Ok(found) => tracing::warn!(runtime = kind, details = ?found.details, "runtime is not usable here"),
            Err(_) => tracing::warn!(runtime = kind, "runtime did not say in time whether it is usable"),
        }
    }
    kinds
}

/// The address others reach this node under: the one it is bound to, or, bound to all, the one that packets to
/// the registry (else to the world) would leave from. Asking the routing table sends nothing.
pub(crate) fn advertised(bound: IpAddr, registry: &str) -> IpAddr {
    if !bound.is_unspecified() {
        return bound;
    }
    // Addresses set aside for documentation stand for "the world".
    let world_v4 = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    let world_v6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9));
    let mut targets: Vec<SocketAddr> = registry.parse().into_iter().collect();
    targets.push(world_v4);
    if bound.is_ipv6() {
        targets.push(world_v6);
    }
    let outbound = targets.into_iter().find_map(leaves_from);
    outbound.unwrap_or_else(|| if bound.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() })
}

fn leaves_from(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}
