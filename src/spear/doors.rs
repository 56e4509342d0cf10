//! Who may come in through each listener, and what our own clients present: by the settings, and again when they change.

use net::{Access, Credential, Listener, Token};
use std::path::{Path, PathBuf};

use crate::{
    config::{Auth, TokenSource},
    stopped::Stopped,
};

/// A token that no setting names.
#[derive(Clone, Debug)]
pub struct MadeToken {
    /// The token.
    pub token: Token,
    /// Where it is kept.
    pub path: PathBuf,
    /// Was it made just now?
    pub new: bool,
}

/// The rules for all listeners of the process.
pub(crate) struct Doors {
    rules: Rules,
    credential: Credential,
    doors: Vec<Door>,
}

/// What the settings say.
struct Rules {
    token: Option<Token>,
    insecure: bool,
    allowed_hosts: Vec<String>,
}

/// One listener.
struct Door {
    listener: &'static str,
    loopback: bool,
    /// Where a token is kept that we made.
    data_dir: PathBuf,
    access: Access,
    made: Option<MadeToken>,
}

/// Rules that can be put in force without a failure.
pub(crate) struct Prepared {
    rules: Rules,
    decided: Vec<(Access, Option<MadeToken>)>,
}

impl Doors {
    /// By the settings; there are no listeners yet.
    ///
    /// # Errors
    /// The token cannot be read.
    pub(crate) fn new(auth: &Auth) -> Result<Self, Stopped> {
        let rules = Rules::read(auth)?;
        let credential = Credential::from(rules.token.clone());
        Ok(Self { rules, credential, doors: Vec::new() })
    }

    /// What our own clients present.
    pub(crate) fn credential(&self) -> Credential {
        self.credential.clone()
    }

    /// The rules for a listener; they follow the settings from now on.
    ///
    /// # Errors
    /// A token is needed, and neither found nor made.
    pub(crate) fn open(&mut self, listener: &Listener, data_dir: &Path) -> Result<Access, Stopped> {
        let (name, loopback, data_dir) = (listener.name(), listener.is_loopback(), data_dir.to_owned());
        let (access, made) = self.rules.decide(name, loopback, &data_dir)?;
        if let Some(made) = &made {
            let (path, new) = (made.path.display(), made.new);
            tracing::info!(listener = name, token_file = %path, new, "callers need the token in this file");
        }
        self.doors.push(Door { listener: name, loopback, data_dir, access: access.clone(), made });
        Ok(access)
    }

    /// A token that we made or found ourselves, if a listener has one.
    pub(crate) fn made(&self) -> Option<MadeToken> {
        self.doors.iter().find_map(|door| door.made.clone())
    }

    /// Reads what other settings need; nothing changes yet.
    ///
    /// # Errors
    /// As at the start.
    pub(crate) fn prepare(&self, auth: &Auth) -> Result<Prepared, Stopped> {
        let rules = Rules::read(auth)?;
        let decide = |door: &Door| rules.decide(door.listener, door.loopback, &door.data_dir);
        let decided = self.doors.iter().map(decide).collect::<Result<_, _>>()?;
        Ok(Prepared { rules, decided })
    }

    /// Puts rules in force that were prepared; tells whether a token is another than before.
    pub(crate) fn apply(&mut self, prepared: Prepared) -> bool {
        let Prepared { rules, decided } = prepared;
        let mut changed = differ(self.rules.token.as_ref(), rules.token.as_ref());
        self.credential.set(rules.token.clone());
        self.rules = rules;
        for (door, (access, made)) in self.doors.iter_mut().zip(decided) {
            let token = |made: &Option<MadeToken>| made.as_ref().map(|made| made.token.clone());
            changed |= differ(token(&door.made).as_ref(), token(&made).as_ref());
            door.access.replace(&access);
            door.made = made;
        }
        changed
    }
}

fn differ(old: Option<&Token>, new: Option<&Token>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => !old.is(new),
        (old, new) => old.is_some() != new.is_some(),
    }
}

impl Rules {
    fn read(auth: &Auth) -> Result<Self, Stopped> {
        let token = configured_token(&auth.token)?;
        Ok(Self { token, insecure: auth.insecure_no_auth, allowed_hosts: auth.allowed_hosts.clone() })
    }

    /// Without a configured token, loopback is open and everything else wants the token that is kept in the data
    /// directory.
    fn decide(&self, listener: &str, loopback: bool, data_dir: &Path) -> Result<(Access, Option<MadeToken>), Stopped> {
        if self.insecure {
            tracing::warn!(listener, "insecure: anybody who reaches this address may do anything");
            return Ok((Access::open("--insecure-no-auth"), None));
        }
        if let Some(token) = &self.token {
            return Ok((Access::token(token.clone()).allow_hosts(&self.allowed_hosts), None));
        }
        if loopback {
            return Ok((Access::loopback(&self.allowed_hosts), None));
        }
        let (token, path, new) = Token::load_or_create(data_dir, "token").map_err(Stopped::usage)?;
        let access = Access::token(token.clone()).allow_hosts(&self.allowed_hosts);
        Ok((access, Some(MadeToken { token, path, new })))
    }
}

fn configured_token(source: &TokenSource) -> Result<Option<Token>, Stopped> {
    match source {
        TokenSource::None => Ok(None),
        TokenSource::File(path) => Token::from_file(path).map(Some).map_err(Stopped::usage),
        TokenSource::Text(text) => {
            use secrecy::ExposeSecret;
            Token::from_text(text.expose_secret()).map(Some).map_err(Stopped::usage)
        }
    }
}
