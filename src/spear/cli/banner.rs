//! What a person sees when the program is ready.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{
    compose::Running,
    config::{Resolved, TokenSource},
};

/// What the banner says beside the addresses.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Is Swagger served?
    pub swagger: bool,
    /// The flag with the token that the operator configured; nothing for a variable, which a client reads too.
    pub token: Option<String>,
}

impl Extras {
    /// As the settings say.
    pub fn of(resolved: &Resolved) -> Self {
        let token = match &resolved.auth.token {
            TokenSource::None => None,
            TokenSource::Text(_) => Some(String::new()),
            TokenSource::File(path) => Some(format!(" --token-file {}", path.display())),
        };
        Self { swagger: resolved.sms.as_ref().is_some_and(|sms| sms.config.enable_swagger), token }
    }
}

/// The addresses and the next thing to try, for a terminal.
pub fn banner(running: &Running, extras: &Extras) -> String {
    let mut text = format!("\n  Spear {} is ready.\n\n", env!("CARGO_PKG_VERSION"));
    let mut line = |name: &str, rest: String| {
        writeln!(text, "    {name:<9} {rest}").expect("writing to a string cannot fail");
    };
    for (name, part) in [("registry", "sms"), ("agent", "spearlet")] {
        let (http, grpc) = (running.address(&format!("{part}/http")), running.address(&format!("{part}/grpc")));
        if let (Some(http), Some(grpc)) = (http, grpc) {
            line(name, format!("REST http://{}   gRPC {}", reachable(http), reachable(grpc)));
        }
    }
    let registry = running.address("sms/http").map(reachable);
    if let (Some(http), true) = (registry, extras.swagger) {
        line("API", format!("http://{http}/swagger-ui/"));
    }
    if let Some(made) = &running.token {
        let path = made.path.display();
        match made.new {
            true => line("token", format!("{}   (shown this once; kept in {path})", made.token.expose())),
            false => line("token", format!("in {path}")),
        }
    }
    match registry {
        Some(http) => {
            let kept = running.token.as_ref().map(|made| format!(" --token-file {}", made.path.display()));
            let token = extras.token.clone().or(kept).unwrap_or_default();
            // What is asked without being told where.
            let addr = if http.port() == 8080 { String::new() } else { format!(" --addr {http}") };
            text.push_str("\n  Next, in another terminal:\n\n");
            text.push_str("    spear sample write hello\n");
            text.push_str(&format!("    spear run{addr}{token} hello.wasm\n"));
            text.push_str("\n  `spear --help` goes on from there. Ctrl-C stops.\n\n");
        }
        None => text.push_str("\n  Ctrl-C stops.\n\n"),
    }
    text
}

/// An address that can be typed: "everywhere" is here, too.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}
