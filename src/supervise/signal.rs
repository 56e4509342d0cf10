//! SIGTERM and SIGINT stop, SIGHUP reloads.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, caught from now on.
///
/// # Errors
/// When the process may not catch signals.
pub fn stop_signals() -> std::io::Result<(Signal, Signal)> {
    Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

/// SIGHUP, caught from now on.
///
/// # Errors
/// When the process may not catch signals.
pub fn reload_signal() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Resolves at the first SIGTERM or SIGINT; a second one ends the process at once with 128 + its number.
pub async fn stop_signal((mut terminate, mut interrupt): (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // On a thread of its own, so that it works even when the runtime no longer does; with the streams that caught
    // the first signal, so that none is missed between the two.
    let waiter = std::thread::Builder::new().name("second-signal".to_owned());
    let spawned = waiter.spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let code = runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => 143,
                _ = interrupt.recv() => 130,
            }
        });
        std::process::exit(code);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "a second signal will not end the process at once");
    }
}
