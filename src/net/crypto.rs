//! The one TLS implementation.

/// Makes aws-lc-rs the process's TLS provider. `main` calls this before anything else: with none chosen,
/// rustls panics at the first connection. Calling it again changes nothing.
pub fn install_crypto() {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a tls provider is already installed");
    }
}
