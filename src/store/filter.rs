//! Which events a reader gets: the same answer for the log and for the live feed.

use std::convert::Infallible;
use std::str::FromStr;

use super::{EventFilter, Match};
use crate::event::Event;
use crate::ids::SessionId;

/// What of an event can be filtered on, whether it is an [`Event`] already or still a row.
pub(super) struct Traits<'a> {
    pub kind: &'a str,
    pub device_id: Option<&'a str>,
    pub device_type: Option<&'a str>,
    pub reason: Option<&'a str>,
    pub session_id: Option<SessionId>,
}

impl EventFilter {
    /// Whether its reader wants this event: it must please each list that is not empty. An event that lacks what
    /// a list asks for, as a connected event lacks a reason, does not please that list.
    pub fn matches(&self, event: &Event) -> bool {
        self.wants(&Traits {
            kind: event.kind.as_str(),
            device_id: event.device_id.as_ref().map(|d| d.as_str()),
            device_type: event.device_type.as_ref().map(|t| t.as_str()),
            reason: event.reason.map(|r| r.as_str()),
            session_id: event.session_id,
        })
    }

    pub(super) fn wants(&self, event: &Traits<'_>) -> bool {
        let any = |list: &[Match], word: Option<&str>| {
            list.is_empty() || word.is_some_and(|word| list.iter().any(|m| m.matches(word)))
        };
        any(&self.types, Some(event.kind))
            && any(&self.device_ids, event.device_id)
            && any(&self.device_types, event.device_type)
            && any(&self.reasons, event.reason)
            && self.session_id.is_none_or(|id| event.session_id == Some(id))
    }
}

impl Match {
    pub fn matches(&self, word: &str) -> bool {
        match self {
            Match::Is(whole) => word == whole,
            Match::StartsWith(beginning) => word.starts_with(beginning.as_str()),
        }
    }
}

/// `abc*` is a beginning, anything else a whole word. Every text is one of the two.
impl FromStr for Match {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_suffix('*') {
            Some(beginning) => Match::StartsWith(beginning.to_owned()),
            None => Match::Is(text.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Match {
        let Ok(word) = text.parse();
        word
    }

    fn ended<'a>(device: &'a str, reason: Option<&'a str>) -> Traits<'a> {
        Traits {
            kind: "lastpong.session.disconnected.v1",
            device_id: Some(device),
            device_type: Some("meter"),
            reason,
            session_id: None,
        }
    }

    #[test]
    fn a_star_at_the_end_makes_a_beginning() {
        assert_eq!(word("abc*"), Match::StartsWith("abc".into()));
        assert_eq!(word("abc"), Match::Is("abc".into()));
        assert_eq!(word("a*c"), Match::Is("a*c".into()));
        assert!(word("*").matches("anything"));
        assert!(word("ab*").matches("ab") && !word("ab*").matches("a"));
        assert!(!word("ab").matches("abc"));
    }

    #[test]
    fn every_list_must_be_pleased_by_one_of_its_words() {
        let filter = EventFilter {
            device_ids: vec![word("a*"), word("b")],
            reasons: vec![word("kicked"), word("ban*")],
            ..EventFilter::default()
        };
        assert!(filter.wants(&ended("a7", Some("banned"))));
        assert!(filter.wants(&ended("b", Some("kicked"))));
        assert!(!filter.wants(&ended("b7", Some("kicked"))));
        assert!(!filter.wants(&ended("a7", Some("replaced"))));
        assert!(!filter.wants(&ended("a7", None)));
        assert!(EventFilter::default().wants(&ended("a7", None)));
    }

    #[test]
    fn a_session_is_one_session() {
        let id = SessionId::new();
        let filter = EventFilter { session_id: Some(id), ..EventFilter::default() };
        assert!(filter.wants(&Traits { session_id: Some(id), ..ended("a", None) }));
        assert!(!filter.wants(&Traits { session_id: Some(SessionId::new()), ..ended("a", None) }));
        assert!(!filter.wants(&ended("a", None)));
    }
}
