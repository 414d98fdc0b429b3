//! The names things go by. Each is a newtype, so that one cannot stand in for another.
//!
//! [`DeviceId`], [`DeviceType`] and [`UserName`] are checked where they are made: whoever holds one holds a valid one.

use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::secret::has_token;

/// The longest device id, device type or user's name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// What is wrong with a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not 1-{MAX_NAME_BYTES} of [A-Za-z0-9._:@-]")]
pub struct BadName {
    kind: &'static str,
    value: String,
}

fn check(kind: &'static str, value: &str) -> Result<(), BadName> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:@-".contains(&b);
    // A token in the place of a name would be kept, listed and logged.
    let is_token = has_token(value);
    if (1..=MAX_NAME_BYTES).contains(&value.len()) && value.bytes().all(allowed) && !is_token {
        return Ok(());
    }
    let value = if is_token { "(a token)".to_owned() } else { value.chars().take(MAX_NAME_BYTES).collect() };
    Err(BadName { kind, value })
}

macro_rules! name {
    ($(#[doc = $doc:literal])* $name:ident, $kind:literal) => {
        crate::schema::schema_of!($name, crate::schema::name(concat!($($doc),*).trim()));

        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadName;

            fn from_str(value: &str) -> Result<Self, BadName> {
                check($kind, value)?;
                Ok(Self(value.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(value: String) -> Result<Self, BadName> {
                value.parse()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// An identity that connects: 1-128 of `[A-Za-z0-9._:@-]`.
    DeviceId,
    "device_id"
);
name!(
    /// The kind of a device, in the alphabet of [`DeviceId`]; `device` where nothing was said.
    DeviceType,
    "device_type"
);
name!(
    /// One installation member's lasting name, in the alphabet of [`DeviceId`]; by default the host name.
    NodeId,
    "node_id"
);
name!(
    /// Who logs in, in the alphabet of [`DeviceId`].
    UserName,
    "user"
);

impl Default for DeviceType {
    fn default() -> Self {
        static DEVICE: LazyLock<DeviceType> = LazyLock::new(|| DeviceType("device".into()));
        DEVICE.clone()
    }
}

macro_rules! uuid_v7 {
    ($(#[doc = $doc:literal])* $name:ident) => {
        crate::schema::schema_of!($name, crate::schema::uuid(concat!($($doc),*).trim()));

        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, that sorts after those made before it in this process.
            #[expect(clippy::new_without_default, reason = "each call makes another id")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(value: &str) -> Result<Self, uuid::Error> {
                value.parse().map(Self)
            }
        }
    };
}

uuid_v7!(
    /// One admitted connection of a device.
    SessionId
);
uuid_v7!(
    /// One run of a node: new at every start.
    Incarnation
);
uuid_v7!(
    /// One event, through every retry of its delivery.
    EventId
);
uuid_v7!(
    /// One ban. The same device banned anew is another.
    BanId
);
uuid_v7!(
    /// One revocation of tokens.
    RevocationId
);
uuid_v7!(
    /// One entry of the audit.
    AuditId
);

/// One run of one node: who writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run {
    pub node_id: NodeId,
    pub incarnation: Incarnation,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bounded_and_of_the_alphabet() {
        for good in ["a", "sensor-7", "A.b_c:d@e-f", &"x".repeat(128)] {
            assert_eq!(good.parse::<DeviceId>().map(|d| d.to_string()), Ok(good.to_string()));
        }
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJkIn0.c2lnbmF0dXJl";
        for bad in ["", " ", "a b", "é", "a/b", "*", &"x".repeat(129), token] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad:?} was let in");
        }
    }
}
