//! What standard output is: a terminal of some width, or not one; and whether colours are wanted.

use std::io::{self, IsTerminal};

use super::When;
use crate::{
    cli::{Environment, connection::text},
    stopped::Stopped,
};

/// Where the output goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Surroundings {
    /// Columns and lines, if standard output is a terminal.
    pub(in crate::cli) terminal: Option<(u16, u16)>,
    /// Shall words that tell a state be coloured?
    pub(in crate::cli) colour: bool,
}

impl Surroundings {
    pub(super) fn of(when: When, environment: &Environment) -> Result<Self, Stopped> {
        let terminal = io::stdout().is_terminal().then(size);
        let set = |name: &str| text(environment, name);
        let forced = set("CLICOLOR_FORCE")?.is_some_and(|value| value != "0");
        let refused = set("NO_COLOR")?.is_some();
        let plain =
            set("CLICOLOR")?.is_some_and(|value| value == "0") || set("TERM")?.is_none_or(|term| term == "dumb");
        let colour = match when {
            When::Always => true,
            When::Never => false,
            When::Auto => !refused && (forced || (terminal.is_some() && !plain)),
        };
        Ok(Self { terminal, colour })
    }
}

/// Columns and lines; what terminals had once, if it does not say.
fn size() -> (u16, u16) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => (80, 24),
    }
}
