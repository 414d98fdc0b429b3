//! Parameters that several routes take, with what [`super::super::query`] allows of them.

use utoipa::IntoParams;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};

use crate::event::EventKind;
use crate::http::debug::select::SortBy;
use crate::http::query::{DEFAULT_LIMIT, LIMITS};
use crate::reason::Reason;
use crate::schema::{NAME, string, whole, word};

fn parameter(place: ParameterIn, name: &str, what: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(what))
        .schema(Some(schema.build()))
        .build()
}

fn query(name: &str, what: &str, schema: ObjectBuilder) -> Parameter {
    parameter(ParameterIn::Query, name, what, schema)
}

macro_rules! parameters {
    ($(#[$doc:meta])* $name:ident: $($parameter:expr),+ $(,)?) => {
        $(#[$doc])*
        pub(in crate::http) struct $name;

        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                vec![$($parameter),+]
            }
        }
    };
}

parameters!(
    /// Entries on a page.
    PageLimit: query(
        "limit",
        "Entries on a page. Not for a stream.",
        whole(*LIMITS.start() as i64).maximum(Some(*LIMITS.end() as i64)).default(Some(DEFAULT_LIMIT.into())),
    )
);

parameters!(
    /// Which node is meant.
    ThisNode: query(
        "node",
        "The node that is meant: any other refuses with 409. Without it, whichever was reached.",
        string().pattern(Some(NAME)),
    )
);

parameters!(
    /// The page before.
    Cursor: query(
        "cursor",
        "A `next_cursor` of the page before, which was asked for with the same sort and state.",
        string().pattern(Some("^([0-9a-f]{2})+$")),
    )
);

parameters!(
    /// Where to begin in the log.
    After: query("after", "Begin after the event of this `seq`, which is at most the newest.", whole(0))
);

parameters!(
    /// Where a client says itself that it goes on.
    LastEventId: parameter(
        ParameterIn::Header,
        "Last-Event-ID",
        "The `seq` of the event that was seen last; wins over `after`.",
        whole(0),
    )
);

parameters!(
    /// Which events are wanted.
    EventFilters:
    query(
        "types",
        "Types of events: a list with commas, `*` at the end of a word for any ending.",
        words(EventKind::ALL.iter().map(|kind| kind.as_str())),
    ),
    query("device_id", "Devices: a list in the same way.", names()),
    query("device_type", "Kinds of devices: a list in the same way.", names()),
    query(
        "reason",
        "Reasons of ends: a list in the same way. Events that have none are left out.",
        words(Reason::ALL.iter().map(|reason| reason.as_str())),
    ),
);

parameters!(
    /// Which sessions are wanted, and in which order.
    SessionFilters:
    query("state", "Of live sessions; or `closed`, for those that have ended.",
        word("A state.", ["starting", "live", "suspect", "closed"])),
    query("sort", "Of live sessions; `-` before it reverses.", word("An order.", sorts())),
    query("device_id", "A device, or with `*` at the end the beginning of one.", name_or_beginning()),
    query("device_type", "A kind of devices.", string().pattern(Some(NAME))),
    query("node", "A node.", string().pattern(Some(NAME))),
    query("remote_addr", "Of live sessions: an address, or a network like 10.0.0.0/8.", string()),
    query("min_rtt_ms", "Of live sessions: a last round trip of at least so many milliseconds.",
        ObjectBuilder::new().schema_type(SchemaType::Type(Type::Number)).minimum(Some(0.0))),
    query("idle_gt", "Of live sessions: silent for longer than this, as 500ms, 30s or 5m.", string()),
    query("reason", "Of sessions that have ended: why.", word("A reason.", Reason::ALL.iter().map(|r| r.as_str()))),
);

parameters!(
    /// Which sessions are meant.
    SessionIds: query("ids", "Ids of sessions: a list with commas.", {
        const ID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
        string().pattern(Some(format!("^{ID}(,{ID}){{0,99}}$")))
    })
);

parameters!(
    /// Which of a device's sessions are wanted.
    EndReason: query(
        "reason",
        "Only those that have ended, and why.",
        word("A reason.", Reason::ALL.iter().map(|r| r.as_str())),
    )
);

fn sorts() -> impl Iterator<Item = &'static str> {
    const REVERSED: [&str; 10] = [
        "-connected_at",
        "-last_pong",
        "-rtt",
        "-idle",
        "-missed",
        "-device_id",
        "-device_type",
        "-state",
        "-node",
        "-remote_addr",
    ];
    SortBy::ALL.map(|(name, _)| name).into_iter().chain(REVERSED)
}

/// A list of these, or of beginnings of them.
fn words(known: impl Iterator<Item = &'static str>) -> ObjectBuilder {
    let word = |known: &str| {
        let escaped = known.replace('.', r"\.");
        // A beginning: any number of its characters, from the first on.
        let beginning = known.chars().rev().fold(String::new(), |rest, c| match c {
            '.' => format!(r"(\.{rest})?"),
            c => format!("({c}{rest})?"),
        });
        format!(r"{escaped}|{beginning}\*")
    };
    let word = known.map(word).collect::<Vec<_>>().join("|");
    string().pattern(Some(format!("^({word})(,({word}))*$")))
}

const ONE: &str = r"([A-Za-z0-9._:@-]{1,128}|[A-Za-z0-9._:@-]{0,128}\*)";

fn names() -> ObjectBuilder {
    string().pattern(Some(format!("^{ONE}(,{ONE}){{0,99}}$")))
}

fn name_or_beginning() -> ObjectBuilder {
    string().pattern(Some(format!("^{ONE}$")))
}
