//! Schemas of names, words and times, as the OpenAPI document shows them: for types whose form on the wire is not that of
//! their fields, of which one could be derived.

use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};

/// A name of the alphabet of device ids.
pub const NAME: &str = "^[A-Za-z0-9._:@-]{1,128}$";

/// A string that needs no more said of it.
pub fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

pub fn name(what: &str) -> ObjectBuilder {
    string().description(Some(what)).pattern(Some(NAME)).min_length(Some(1)).max_length(Some(128))
}

pub fn uuid(what: &str) -> ObjectBuilder {
    string().description(Some(what)).format(Some(SchemaFormat::Custom("uuid".to_owned())))
}

pub fn time(what: &str) -> ObjectBuilder {
    string().description(Some(what)).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

/// One of these words.
pub fn word(what: &str, words: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    string().description(Some(what)).enum_values(Some(words))
}

/// A whole number from `least` up.
pub fn whole(least: i64) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(least))
}

pub fn done(schema: ObjectBuilder) -> RefOr<Schema> {
    RefOr::T(Schema::Object(schema.build()))
}

/// Gives a type the schema that the expression says.
macro_rules! schema_of {
    ($name:ident, $schema:expr) => {
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                crate::schema::done($schema)
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

pub(crate) use schema_of;
