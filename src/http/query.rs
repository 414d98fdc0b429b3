//! Query parameters: each known by name, given at most once, and refused with its name, its value and what is
//! allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use actix_web::HttpRequest;

use crate::event::EventKind;
use crate::ids::{DeviceId, SessionId};
use crate::problem::Problem;
use crate::reason::Reason;
use crate::store::{EventFilter, Match};

/// Entries in one list, because each costs a comparison with every event.
const MAX_WORDS: usize = 100;

/// Entries on a page: the default and the bounds.
pub(crate) const DEFAULT_LIMIT: usize = 100;
pub(crate) const LIMITS: RangeInclusive<usize> = 1..=1000;

/// The parameters that [`Params::event_filter`] reads.
pub(crate) const FILTERS: [&str; 4] = ["types", "device_id", "device_type", "reason"];

/// The session that the path names.
pub(crate) fn session_id(request: &HttpRequest) -> Result<SessionId, Problem> {
    let text = request.match_info().query("session_id");
    text.parse().map_err(|_| Problem::bad_input("session_id", text, "a UUID"))
}

/// The parameters of one request.
#[derive(Debug)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads a query string in which only these parameters may be.
    pub(crate) fn parse(query: &str, known: &[&str]) -> Result<Self, Problem> {
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
            .map_err(|e| Problem::bad_request(format!("the query string cannot be read: {e}")))?;
        for (n, (name, value)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(Problem::unknown_parameter(name, known));
            }
            if pairs[..n].iter().any(|(earlier, _)| earlier == name) {
                return Err(Problem::bad_input(name, value, "one value: it is there twice"));
            }
        }
        Ok(Self(pairs))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn parsed<T: FromStr>(&self, name: &str, allowed: &str) -> Result<Option<T>, Problem> {
        let Some(value) = self.text(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| Problem::bad_input(name, value, allowed))
    }

    pub(crate) fn number<T: FromStr + PartialOrd + Display>(
        &self,
        name: &str,
        range: RangeInclusive<T>,
    ) -> Result<Option<T>, Problem> {
        let allowed = || format!("{} to {}", range.start(), range.end());
        let Some(value) = self.text(name) else { return Ok(None) };
        match value.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(Problem::bad_input(name, value, &allowed())),
        }
    }

    pub(crate) fn limit(&self) -> Result<usize, Problem> {
        Ok(self.number("limit", LIMITS)?.unwrap_or(DEFAULT_LIMIT))
    }

    pub(crate) fn after(&self) -> Result<Option<i64>, Problem> {
        self.number("after", 0..=i64::MAX)
    }

    /// A device id, or with `*` at its end the beginning of one.
    pub(crate) fn device_id(&self) -> Result<Option<Match>, Problem> {
        let Some(value) = self.text("device_id") else { return Ok(None) };
        name("device_id", value).map(Some)
    }

    pub(crate) fn reason(&self) -> Result<Option<Reason>, Problem> {
        self.parsed("reason", &reasons())
    }

    pub(crate) fn event_filter(&self) -> Result<EventFilter, Problem> {
        Ok(EventFilter {
            types: self
                .list("types", |value| among("types", value, EventKind::ALL.iter().map(|k| k.as_str())))?,
            device_ids: self.list("device_id", |value| name("device_id", value))?,
            device_types: self.list("device_type", |value| name("device_type", value))?,
            reasons: self
                .list("reason", |value| among("reason", value, Reason::ALL.iter().map(|r| r.as_str())))?,
            ..EventFilter::default()
        })
    }

    fn list(&self, name: &str, word: impl Fn(&str) -> Result<Match, Problem>) -> Result<Vec<Match>, Problem> {
        let Some(value) = self.text(name) else { return Ok(Vec::new()) };
        if value.split(',').nth(MAX_WORDS).is_some() {
            return Err(Problem::bad_input(name, value, &format!("a list of at most {MAX_WORDS}")));
        }
        value.split(',').map(|part| word(part.trim())).collect()
    }
}

fn reasons() -> String {
    Reason::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(", ")
}

fn word(text: &str) -> Match {
    let Ok(word) = text.parse();
    word
}

/// A word of the alphabet of device ids, or the beginning of one.
fn name(parameter: &str, value: &str) -> Result<Match, Problem> {
    let bare = value.strip_suffix('*').unwrap_or(value);
    if value == "*" || bare.parse::<DeviceId>().is_ok() {
        return Ok(word(value));
    }
    Err(Problem::bad_input(parameter, value, "1-128 of [A-Za-z0-9._:@-], with * at the end for a beginning"))
}

/// One of a known set, or the beginning of at least one.
fn among(
    parameter: &str,
    value: &str,
    known: impl Iterator<Item = &'static str> + Clone,
) -> Result<Match, Problem> {
    let wanted = word(value);
    if known.clone().any(|k| wanted.matches(k)) {
        return Ok(wanted);
    }
    let allowed = known.collect::<Vec<_>>().join(", ");
    Err(Problem::bad_input(parameter, value, &format!("{allowed}, or a beginning with *")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(query: &str) -> Result<EventFilter, Problem> {
        Params::parse(query, &FILTERS)?.event_filter()
    }

    #[test]
    fn lists_are_words_and_beginnings() {
        let read =
            filter("types=lastpong.session.*,lastpong.node.lost.v1&device_id=a,b*&reason=pong*").unwrap();
        assert_eq!(
            read.types,
            [Match::StartsWith("lastpong.session.".into()), Match::Is("lastpong.node.lost.v1".into())]
        );
        assert_eq!(read.device_ids, [Match::Is("a".into()), Match::StartsWith("b".into())]);
        assert_eq!(read.reasons, [Match::StartsWith("pong".into())]);
        assert_eq!(filter("").unwrap(), EventFilter::default());
    }

    #[test]
    fn a_refusal_names_the_input() {
        for (query, input) in [
            ("color=red", "color"),
            ("types=session.connected", "types"),
            ("types=lastpong.*,nothing*", "types"),
            ("device_id=", "device_id"),
            ("device_id=a,,b", "device_id"),
            ("device_id=a/b", "device_id"),
            ("device_id=a*b", "device_id"),
            ("device_type=%C3%A9", "device_type"),
            ("reason=bored", "reason"),
            ("reason=replaced&reason=kicked", "reason"),
        ] {
            let problem = filter(query).expect_err(query);
            assert_eq!(problem.status, 400);
            assert_eq!(problem.input.expect(query).name, input, "{query}");
        }
        assert!(filter(&format!("device_id={}", vec!["d"; MAX_WORDS].join(","))).is_ok());
        assert!(filter(&format!("device_id={}", vec!["d"; MAX_WORDS + 1].join(","))).is_err());
    }

    #[test]
    fn numbers_keep_to_their_range() {
        let number = |query| Params::parse(query, &["limit", "after"]).and_then(|p| p.limit());
        assert_eq!(number("").unwrap(), DEFAULT_LIMIT);
        assert_eq!(number("limit=1000").unwrap(), 1000);
        for bad in ["limit=0", "limit=1001", "limit=-1", "limit=", "limit=ten", "limit=99999999999999999999"]
        {
            assert_eq!(number(bad).expect_err(bad).input.unwrap().allowed, "1 to 1000");
        }
        let after = |query| Params::parse(query, &["limit", "after"]).and_then(|p| p.after());
        assert_eq!(after("after=9223372036854775807").unwrap(), Some(i64::MAX));
        assert!(after("after=-1").is_err());
    }
}
