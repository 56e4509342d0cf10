//! A stream of server-sent events that outlives its connection: what breaks off is taken up after the last event.

use net::rest::{EventStream, ServerEvent};
use std::time::Duration;
use tokio::time::Instant;
use types::{ErrorKind, Fault};

use super::{client::Client, output};
use crate::stopped::Stopped;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Events of a path, in order and each once.
pub(super) struct Resuming<'a> {
    client: &'a Client,
    path: String,
    /// Id of the last event that had one.
    after: Option<String>,
    /// How long a connection may be lost before it is given up; none: for ever.
    patience: Option<Duration>,
    stream: Option<EventStream>,
    /// Since when there is no connection.
    lost: Option<Instant>,
    tries: u32,
}

impl<'a> Resuming<'a> {
    /// Connects; a server that is not there at the beginning is an error at once.
    pub(super) async fn open(
        client: &'a Client,
        path: String,
        after: Option<String>,
        patience: Option<Duration>,
    ) -> Result<Self, Stopped> {
        let opened = client.rest.events(&path, after.as_deref()).await;
        let stream = Some(opened.map_err(|fault| client.refused(&fault))?);
        Ok(Self { client, path, after, patience, stream, lost: None, tries: 0 })
    }

    /// The next event.
    ///
    /// # Errors
    /// The server refuses to go on, or stays away for too long.
    pub(super) async fn next(&mut self) -> Result<ServerEvent, Stopped> {
        loop {
            match self.connected().await?.next().await {
                Ok(Some(event)) => {
                    (self.lost, self.tries) = (None, 0);
                    if !event.id.is_empty() {
                        self.after = Some(event.id.clone());
                    }
                    return Ok(event);
                }
                // The server stopped, or the connection broke off.
                Ok(None) => self.stream = None,
                Err(fault) if passing(&fault) => self.stream = None,
                Err(fault) => return Err(self.client.refused(&fault)),
            }
        }
    }

    async fn connected(&mut self) -> Result<&mut EventStream, Stopped> {
        loop {
            if self.stream.is_some() {
                break;
            }
            let since = *self.lost.get_or_insert_with(Instant::now);
            let patient = self.patience.is_none_or(|patience| since.elapsed() < patience);
            if !patient {
                let address = self.client.rest.address();
                return Err(Stopped::unavailable(format!("the connection to {address} is lost; try again later")));
            }
            tokio::time::sleep(FIRST_PAUSE.saturating_mul(1 << self.tries.min(5)).min(LONGEST_PAUSE)).await;
            self.tries = self.tries.saturating_add(1);
            match self.client.rest.events(&self.path, self.after.as_deref()).await {
                Ok(stream) => self.stream = Some(stream),
                Err(fault) if passing(&fault) && patient => {
                    if self.tries == 2 {
                        output::complain(&format!("{}; trying again", fault.message));
                    }
                }
                Err(fault) => return Err(self.client.refused(&fault)),
            }
        }
        self.stream.as_mut().ok_or_else(|| Stopped::failed("the connection was lost"))
    }
}

/// May it be better the next time?
fn passing(fault: &Fault) -> bool {
    matches!(fault.kind, ErrorKind::Unavailable | ErrorKind::Deadline | ErrorKind::Exhausted)
}
