//! What handlers act with, beside looking: whatever an operator does is written down under his name first.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use actix_web::HttpRequest;

use super::Doors;
use super::auth::Caller;
use crate::bans::Bans;
use crate::log_filter::LogFilter;
use crate::problem::Problem;
use crate::revoked::Revoked;
use crate::store::audit::{Action, Book, Entry, Signature};
use crate::supervisor::messages::Drain;
use crate::token::DeviceTokens;

/// One for the whole node.
pub struct Acts {
    pub book: Book,
    pub bans: Arc<Bans>,
    pub revoked: Arc<Revoked>,
    /// What is minted here, and verified at every handshake.
    pub tokens: DeviceTokens,
    pub drain: Recipient<Drain>,
    /// Over how long a drain is spread that does not say.
    pub drain_spread: Duration,
    pub log_filter: Arc<LogFilter>,
}

impl Doors {
    /// Who asks, as the audit names him, and from where.
    pub(super) fn signature(&self, caller: &Caller, request: &HttpRequest) -> Signature {
        let actor = caller.user.as_ref().map_or_else(|| "admin token".to_owned(), ToString::to_string);
        let remote_addr = self.auth.proxies.peer(request.head()).map(|peer| peer.addr.ip());
        Signature { actor, remote_addr, node: self.node_id.clone() }
    }

    /// An entry of the audit, yet to be written.
    pub(super) fn entry(
        &self,
        (caller, request): (&Caller, &HttpRequest),
        action: Action,
        target: impl ToString,
        detail: Option<String>,
    ) -> Entry {
        self.signature(caller, request).entry(action, target, detail)
    }

    /// Writes down what is about to be done.
    ///
    /// # Errors
    /// It could not be: nothing may be done.
    pub(super) async fn note(&self, entry: Entry) -> Result<(), Problem> {
        Ok(self.timed("note", self.acts.book.note(entry)).await?)
    }
}
