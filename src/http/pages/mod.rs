//! The pages: what programs get as JSON, shown to people at the same addresses.
//!
//! - Each is whole as it is served: it can be read, sorted, filtered and paged without a script. The one script makes it
//!   live and carries out actions; it is embedded with all else that a page is made of, and nothing comes from elsewhere.
//! - What is shown is made of the same values as the JSON, and escaped by the templates.
//! - Parts that a page renews by itself are marked `data-live`: the script asks for the page again and puts them in place.
//! - Who may not act is shown no buttons. The routes decide; see [`super::auth`].

pub(super) mod assets;
pub(super) mod audit;
pub(super) mod bans;
mod connections;
mod events;
pub(super) mod home;
mod performance;
mod session;
mod words;

pub(super) use assets::asset;
pub(super) use audit::audit;
pub(super) use bans::bans;
pub(super) use connections::{asked_by_page, closed_page, live_page};
pub(super) use events::{LogPlace, events_page};
pub(super) use home::home;
pub(super) use performance::performance_page;
pub(super) use session::session_page;

use super::Doors;
use super::auth::Caller;
use crate::role::Role;

/// A query as a form sends it, made one that is understood: without the fields that were left empty.
pub(super) fn asked_by_form(query: &str) -> String {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    let given = pairs.iter().filter(|(_, value)| !value.is_empty());
    serde_urlencoded::to_string(given.collect::<Vec<_>>()).unwrap_or_default()
}

/// The way to the next page of a list at `path`, and to the first where this is another.
fn ways(path: &str, query: &str, next_cursor: Option<&str>) -> (Option<String>, Option<String>) {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    let with = |cursor: Option<&str>| {
        let mut all: Vec<(&str, &str)> = pairs
            .iter()
            .filter(|(name, _)| name != "cursor")
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        all.extend(cursor.map(|cursor| ("cursor", cursor)));
        match all.is_empty() {
            true => path.to_owned(),
            false => format!("{path}?{}", serde_urlencoded::to_string(all).unwrap_or_default()),
        }
    };
    let goes_on = pairs.iter().any(|(name, _)| name == "cursor");
    (next_cursor.map(|cursor| with(Some(cursor))), goes_on.then(|| with(None)))
}

/// What every page has around it.
pub(super) struct Frame {
    node: String,
    user: String,
    /// Logged in by a cookie, so that there is a way out.
    named: bool,
    admin: bool,
}

impl Frame {
    pub(super) fn of(caller: &Caller, doors: &Doors) -> Self {
        Self {
            node: doors.node_id.to_string(),
            user: caller.to_string(),
            named: caller.user.is_some(),
            admin: caller.role == Role::Admin,
        }
    }
}
