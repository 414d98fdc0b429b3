//! Who is who: passwords become logins, and logins are recognised by their tokens.
//!
//! - Logins are in the record, not signed: so they hold on every node and over a restart, and end where they are ended,
//!   for all nodes at once. The price is a look-up for each request of a login.
//! - Every attempt is counted before its password is looked at (`attempts`), and takes the same work whether the name
//!   is there or not (`hashing`).
//! - A token that the record does not know costs one look-up, of which few are under way at once.
//! - While the record cannot be asked nobody logs in, and who was seen lately may look but not act (`seen`).
//!
//! Left out on purpose: second factors, and roles beside the two. Who needs more puts a proxy in front that asks.

mod attempts;
mod hashing;
pub mod password;
mod seen;
mod token;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::ids::UserName;
use crate::metrics::Metrics;
use crate::rate::Rate;
use crate::role::Role;
use crate::secret::Secret;
use crate::store::users::{Login, LoginKind, NewLogin, TokenHash, User};
use crate::store::{Store, StoreError};
use crate::time::{Mono, Timestamp};
use attempts::Attempts;
use hashing::Hashing;
use seen::Seen;

/// How long a cookie is good for, at most and unused (NIST SP 800-63B-4, section 2.2.3: a day, and an hour).
const COOKIE_LASTS: Duration = Duration::from_secs(24 * 3600);
const COOKIE_IDLE: Duration = Duration::from_secs(3600);
/// How long a program's token is good for, used or not.
const BEARER_LASTS: Duration = Duration::from_secs(12 * 3600);
/// How exactly the record knows when a login was last used.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// Look-ups of logins at once: others who ask the record have the rest of its readers.
const ASKING: usize = 2;
/// How long a look-up may take, its wait included.
const ASK: Duration = Duration::from_secs(2);

/// Someone who has just logged in.
#[derive(Debug)]
pub struct Opened {
    pub token: Secret,
    pub user: UserName,
    pub role: Role,
    pub lasts: Duration,
    pub expires_at: Timestamp,
}

/// Why nobody was logged in.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The same for a name that is not there.
    #[error("the name or the password is not right")]
    Wrong,
    #[error("too many attempts to log in: try again in {} s", .retry_after.as_secs() + 1)]
    TooMany { retry_after: Duration },
    #[error("too many logins at once: try again soon")]
    Busy,
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// One for the whole node.
pub struct Logins {
    store: Store,
    attempts: Mutex<Attempts>,
    hashing: Hashing,
    seen: Mutex<Seen>,
    asking: Semaphore,
    /// When a refusal may be logged again, and how many were not since.
    refusals: Mutex<(Rate, u64)>,
}

impl Logins {
    pub fn new(store: Store, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            attempts: Mutex::default(),
            hashing: Hashing::new(metrics),
            seen: Mutex::default(),
            asking: Semaphore::new(ASKING),
            refusals: Mutex::new((Rate::new(1), 0)),
        }
    }

    /// Logs in who knows the password. An attempt counts unless it succeeds or could not be made, also when whoever
    /// made it does not wait for its end.
    ///
    /// # Errors
    /// Why not.
    pub async fn attempt(
        &self,
        name: &str,
        password: Secret,
        from: IpAddr,
        kind: LoginKind,
    ) -> Result<Opened, Refused> {
        let name: Option<UserName> = name.parse().ok();
        let counted = held(&self.attempts).begin(from, name.as_ref(), Mono::now());
        let opened = match counted {
            Ok(()) => {
                let opened = self.open(name.as_ref(), password, kind).await;
                if !matches!(opened, Err(Refused::Wrong)) {
                    held(&self.attempts).give_back(from, name.as_ref());
                }
                opened
            }
            Err(retry_after) => Err(Refused::TooMany { retry_after }),
        };
        match &opened {
            Ok(opened) => log::info!(user:% = opened.user, role:% = opened.role, from:% = from; "logged in"),
            Err(refused) => self.tell(refused, from),
        }
        opened
    }

    async fn open(
        &self,
        name: Option<&UserName>,
        password: Secret,
        kind: LoginKind,
    ) -> Result<Opened, Refused> {
        let place = self.hashing.place()?;
        let user = match name {
            Some(name) => self.store.user(name).await?,
            None => None,
        };
        let kept = user.as_ref().map(|user| user.password.hash.clone());
        match (self.hashing.matches(place, password, kept).await?, user) {
            (true, Some(user)) => self.keep(user, kind).await,
            _ => Err(Refused::Wrong),
        }
    }

    async fn keep(&self, user: User, kind: LoginKind) -> Result<Opened, Refused> {
        let lasts = match kind {
            LoginKind::Cookie => COOKIE_LASTS,
            LoginKind::Bearer => BEARER_LASTS,
        };
        let at = Timestamp::now();
        let expires_at = at.saturating_add(lasts);
        let (token, hash) = token::new();
        let login = NewLogin { token: hash, credential: user.password.credential, kind, at, expires_at };
        self.store.open_login(login).await?;
        Ok(Opened { token, user: user.name, role: user.role, lasts, expires_at })
    }

    /// The login that this token proves, if it is not over. `acts` where more is at stake than looking.
    ///
    /// # Errors
    /// The record cannot be asked, and what this node has seen will not do.
    pub async fn recognise(
        &self,
        token: &Secret,
        kind: LoginKind,
        acts: bool,
    ) -> Result<Option<Login>, StoreError> {
        let Some(hash) = token::hash(token.expose()) else { return Ok(None) };
        let slow = || StoreError::Retry(format!("a login was not found in {} s", ASK.as_secs()));
        let found = timeout(ASK, self.look_up(hash)).await.unwrap_or_else(|_| Err(slow()));
        let now = Timestamp::now();
        let good = |login: &Login| login.kind == kind && !is_over(login, now);
        match found {
            Ok(Some(login)) if good(&login) => Ok(Some(self.used(hash, login, now))),
            Ok(_) => {
                held(&self.seen).forget(hash);
                Ok(None)
            }
            Err(error) if acts => Err(error),
            Err(error) => {
                let seen = held(&self.seen).find(hash, Mono::now()).filter(good);
                seen.map(Some).ok_or(error)
            }
        }
    }

    async fn look_up(&self, token: TokenHash) -> Result<Option<Login>, StoreError> {
        let _turn = self.asking.acquire().await.map_err(|error| StoreError::Retry(error.to_string()))?;
        self.store.login(token).await
    }

    /// Notes the use, in the record now and then. Nobody waits for that: what is lost of it is a minute of idle time.
    fn used(&self, token: TokenHash, mut login: Login, now: Timestamp) -> Login {
        if login.used_at < now.saturating_sub(TOUCH_EVERY) {
            login.used_at = now;
            let store = self.store.clone();
            tokio::spawn(async move {
                if let Err(error) = store.touch_login(token, now).await {
                    log::debug!(error:% = error; "the use of a login was not noted");
                }
            });
        }
        held(&self.seen).note(token, login.clone(), Mono::now());
        login
    }

    /// Ends the login of this token, on every node.
    ///
    /// # Errors
    /// The record did not take it: the login goes on.
    pub async fn end(&self, token: &Secret) -> Result<(), StoreError> {
        let Some(hash) = token::hash(token.expose()) else { return Ok(()) };
        self.store.end_login(hash).await?;
        held(&self.seen).forget(hash);
        Ok(())
    }

    /// A line a second at most. Without the name: what was typed there may have been the password.
    fn tell(&self, refused: &Refused, from: IpAddr) {
        let (rate, untold) = &mut *held(&self.refusals);
        if rate.take(Mono::now()).is_err() {
            *untold += 1;
            return;
        }
        log::info!(why:% = refused, from:% = from, others = *untold; "a login was refused");
        *untold = 0;
    }
}

/// A cookie's is over when nobody used it for a while, too.
fn is_over(login: &Login, now: Timestamp) -> bool {
    let idle = login.kind == LoginKind::Cookie && login.used_at < now.saturating_sub(COOKIE_IDLE);
    idle || login.expires_at <= now
}

fn held<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
