//! Schemas of answers that are put together from parts, and of types whose form on the wire is not that of their fields.

use utoipa::openapi::schema::{
    AllOfBuilder, AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat,
};
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::event::{Connected, Disconnected, EventKind, RttMs};
use crate::http::debug::List;
use crate::http::debug::events::Facts;
use crate::http::debug::live::NodePart;
use crate::http::events::PagePlace;
use crate::http::record::Record;
use crate::ids::{DeviceId, DeviceType, EventId, NodeId, SessionId};
use crate::schema::{string, whole, word};
use crate::supervisor::closeup::{Heartbeats, SocketStats};
use crate::supervisor::snapshot::{SessionView, State};
use crate::time::Timestamp;

type Schemas = Vec<(String, RefOr<Schema>)>;

/// Adds a type and all that it is made of.
fn with<T: ToSchema>(schemas: &mut Schemas) {
    T::schemas(schemas);
    schemas.push((T::name().into_owned(), T::schema()));
}

fn of<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}

fn list_of<T: ToSchema>(what: &str) -> ArrayBuilder {
    ArrayBuilder::new().items(of::<T>()).description(Some(what))
}

fn nullable(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Array(vec![kind, Type::Null]))
}

fn count() -> ObjectBuilder {
    counted(ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer)))
}

/// Null where it is not known.
fn count_or_none() -> ObjectBuilder {
    counted(nullable(Type::Integer))
}

fn counted(schema: ObjectBuilder) -> ObjectBuilder {
    schema.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32))).minimum(Some(0))
}

crate::schema::schema_of!(State, word("Where a session is in its life.", ["starting", "live", "suspect"]));

/// One member of an object: its name, its schema, and whether it is always there.
fn object(members: Vec<(&str, RefOr<Schema>)>) -> ObjectBuilder {
    members
        .into_iter()
        .fold(ObjectBuilder::new(), |object, (name, schema)| object.property(name, schema).required(name))
}

fn plain(schema: ObjectBuilder) -> RefOr<Schema> {
    RefOr::T(Schema::Object(schema.build()))
}

impl PartialSchema for SessionView {
    fn schema() -> RefOr<Schema> {
        let time_or_none =
            nullable(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
        let meta = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Object))
            .additional_properties(Some(string()));
        let number = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Number));
        let members = vec![
            ("session_id", of::<SessionId>().into()),
            ("device_id", of::<DeviceId>().into()),
            ("device_type", of::<DeviceType>().into()),
            ("device_seq", plain(nullable(Type::Integer))),
            ("node_id", of::<NodeId>().into()),
            ("state", of::<State>().into()),
            ("connected_at", of::<Timestamp>().into()),
            ("last_pong_at", plain(time_or_none)),
            ("last_active_at", of::<Timestamp>().into()),
            ("idle_ms", plain(number.minimum(Some(0.0)))),
            ("rtt_ms", of::<RttMs>().into()),
            ("missed", plain(count_or_none())),
            ("pings_sent", plain(count_or_none())),
            ("pongs_received", plain(count_or_none())),
            ("reconnect_count", plain(count())),
            ("remote_addr", plain(string())),
            ("meta", plain(meta)),
            ("trace_id", plain(nullable(Type::String))),
        ];
        plain(object(members).description(Some("A live session, a moment ago.")))
    }
}

impl ToSchema for SessionView {
    fn schemas(schemas: &mut Schemas) {
        with::<SessionId>(schemas);
        with::<DeviceId>(schemas);
        with::<DeviceType>(schemas);
        with::<NodeId>(schemas);
        with::<State>(schemas);
        with::<Timestamp>(schemas);
        with::<RttMs>(schemas);
    }
}

/// An event as its readers get it (CloudEvents 1.0).
pub(in crate::http) struct CloudEvent;

impl PartialSchema for CloudEvent {
    fn schema() -> RefOr<Schema> {
        let order = object(vec![("seq", plain(whole(1).description(Some("The order of all events."))))])
            .property(
                "device_seq",
                nullable(Type::Integer).description(Some("The order of a device's events.")),
            );
        // Events of other types have members of their own: docs/events.md.
        let of_another_type = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Object));
        let kinds =
            AnyOfBuilder::new().item(of::<Disconnected>()).item(of::<Connected>()).item(of_another_type);
        let data = AllOfBuilder::new().item(order).item(kinds);
        let event = object(vec![
            ("specversion", plain(string().enum_values(Some(["1.0"])))),
            ("id", of::<EventId>().into()),
            ("source", plain(string().description(Some("`/lastpong/` and the node that tells it.")))),
            ("type", of::<EventKind>().into()),
            ("time", of::<Timestamp>().into()),
            ("datacontenttype", plain(string().enum_values(Some(["application/json"])))),
            ("data", RefOr::T(Schema::AllOf(data.build()))),
        ]);
        plain(event.property("subject", of::<DeviceId>()).description(Some("An event (CloudEvents 1.0).")))
    }
}

impl ToSchema for CloudEvent {
    fn schemas(schemas: &mut Schemas) {
        with::<EventId>(schemas);
        with::<EventKind>(schemas);
        with::<Timestamp>(schemas);
        with::<DeviceId>(schemas);
        with::<Connected>(schemas);
        with::<Disconnected>(schemas);
    }
}

/// An object of one type's members, with a list of events as one more.
macro_rules! with_events {
    ($(#[$doc:meta])* $name:ident: $rest:ty, $member:literal) => {
        $(#[$doc])*
        pub(in crate::http) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let events = list_of::<CloudEvent>("Events.").build();
                let events = object(vec![($member, RefOr::T(Schema::Array(events)))]);
                RefOr::T(Schema::AllOf(AllOfBuilder::new().item(of::<$rest>()).item(events).build()))
            }
        }

        impl ToSchema for $name {
            fn schemas(schemas: &mut Schemas) {
                with::<CloudEvent>(schemas);
                with::<$rest>(schemas);
            }
        }
    };
}

with_events!(
    /// A page of the log.
    EventsPage: PagePlace, "events"
);
with_events!(
    /// The newest events of the log.
    RecentEvents: Facts, "items"
);
with_events!(
    /// One session with its events.
    WholeSession: OneSession, "events"
);

/// A session, live or as the record has it.
pub(in crate::http) struct OneSession;

impl PartialSchema for OneSession {
    fn schema() -> RefOr<Schema> {
        let either = OneOfBuilder::new().item(of::<SessionView>()).item(of::<Record>());
        let now = object(vec![("now", of::<Timestamp>().into())])
            // Of a session that the node which is asked holds.
            .property("heartbeats", of::<Heartbeats>())
            .property(
                "socket",
                OneOfBuilder::new()
                    .item(of::<SocketStats>())
                    .item(ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null))),
            );
        let whole = AllOfBuilder::new().item(either).item(now);
        RefOr::T(Schema::AllOf(whole.build()))
    }
}

impl ToSchema for OneSession {
    fn schemas(schemas: &mut Schemas) {
        with::<Heartbeats>(schemas);
        with::<SocketStats>(schemas);
        with::<SessionView>(schemas);
        with::<Record>(schemas);
    }
}

/// A page of live sessions, with what each node adds to it.
struct LiveSessions;

impl PartialSchema for LiveSessions {
    fn schema() -> RefOr<Schema> {
        let nodes =
            RefOr::T(Schema::Array(list_of::<NodePart>("The nodes whose sessions these are.").build()));
        let complete = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Boolean))
            .description(Some("All nodes are among these, with all of their sessions."));
        let more = object(vec![("nodes", nodes), ("complete", plain(complete))]);
        let whole = AllOfBuilder::new().item(List::<SessionView>::schema()).item(more);
        RefOr::T(Schema::AllOf(whole.build()))
    }
}

/// A page of sessions: all live, or all ended.
pub(in crate::http) struct Sessions;

impl PartialSchema for Sessions {
    fn schema() -> RefOr<Schema> {
        // A page of nothing is of both.
        let either = AnyOfBuilder::new().item(LiveSessions::schema()).item(List::<Record>::schema());
        RefOr::T(Schema::AnyOf(either.build()))
    }
}

impl ToSchema for Sessions {
    fn schemas(schemas: &mut Schemas) {
        with::<SessionView>(schemas);
        with::<Record>(schemas);
        with::<NodePart>(schemas);
        List::<SessionView>::schemas(schemas);
    }
}
