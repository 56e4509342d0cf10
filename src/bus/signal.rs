//! Signals: things worth showing live that nobody must rely on.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::RwLock,
};
use tokio::sync::broadcast;

use crate::Error;

/// Signals kept for a slow listener; older ones are missed and counted.
const KEPT: usize = 1024;

/// A type of signal.
pub trait Signal: Clone + Send + Sync + 'static {}

/// What a listener gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signalled<S> {
    /// A signal.
    One(S),
    /// So many were missed.
    Missed(u64),
}

/// Signals of one type.
pub struct Signals<S> {
    receiver: broadcast::Receiver<S>,
}

impl<S: Signal> Signals<S> {
    /// The next signal; waits for it.
    ///
    /// # Errors
    /// [`Error::Closed`] when nobody can send any more.
    pub async fn next(&mut self) -> Result<Signalled<S>, Error> {
        match self.receiver.recv().await {
            Ok(signal) => Ok(Signalled::One(signal)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Ok(Signalled::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => Err(Error::Closed),
        }
    }
}

/// One channel per type of signal, made when somebody first listens.
#[derive(Default)]
pub(crate) struct Exchange {
    channels: RwLock<HashMap<TypeId, Box<dyn Any + Send + Sync>>>,
}

impl Exchange {
    pub(crate) fn emit<S: Signal>(&self, signal: S) {
        // On the way of every call of a function: readers do not wait for each other.
        let channels = self.channels.read().unwrap_or_else(|broken| broken.into_inner());
        let sender = channels.get(&TypeId::of::<S>()).and_then(|any| any.downcast_ref::<broadcast::Sender<S>>());
        if let Some(sender) = sender {
            // Fails only when nobody listens any more.
            drop(sender.send(signal));
        }
    }

    pub(crate) fn listen<S: Signal>(&self) -> Signals<S> {
        let mut channels = self.channels.write().unwrap_or_else(|broken| broken.into_inner());
        let any = channels.entry(TypeId::of::<S>()).or_insert_with(|| Box::new(broadcast::Sender::<S>::new(KEPT)));
        let sender = any.downcast_ref::<broadcast::Sender<S>>().expect("entries are keyed by their type");
        Signals { receiver: sender.subscribe() }
    }
}
