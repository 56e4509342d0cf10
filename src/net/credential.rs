//! The token that our own clients present, replaceable while they use it.

use std::sync::{Arc, RwLock};

use crate::token::Token;

/// A token to present, or none. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    token: Arc<RwLock<Option<Token>>>,
}

impl Credential {
    /// The token as it is now.
    pub fn get(&self) -> Option<Token> {
        self.token.read().unwrap_or_else(|broken| broken.into_inner()).clone()
    }

    /// Presents another one from now on.
    pub fn set(&self, token: Option<Token>) {
        *self.token.write().unwrap_or_else(|broken| broken.into_inner()) = token;
    }
}

impl From<Option<Token>> for Credential {
    fn from(token: Option<Token>) -> Self {
        Self { token: Arc::new(RwLock::new(token)) }
    }
}
