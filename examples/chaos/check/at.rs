//! Moments and spans, in microseconds. All arithmetic saturates: a record may hold any number.

use serde::{Deserialize, Serialize};

pub const MS: i64 = 1_000;
pub const SECOND: i64 = 1_000_000;

/// Microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct At(pub i64);

impl At {
    pub const NEVER: At = At(i64::MAX);

    pub fn after(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    pub fn before(self, micros: i64) -> Self {
        Self(self.0.saturating_sub(micros))
    }

    /// How much later this is than `earlier`; negative where it is not.
    pub fn since(self, earlier: At) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A setting in milliseconds as a span.
pub fn ms(millis: u32) -> i64 {
    i64::from(millis) * MS
}
