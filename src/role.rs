//! What a user may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// From the least to the most that one may do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks: the requests that change nothing (GET and HEAD).
    Reader,
    /// Looks and acts.
    Admin,
}

impl Role {
    pub const ALL: &[Role] = &[Role::Admin, Role::Reader];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Reader => "reader",
            Role::Admin => "admin",
        }
    }
}

/// What is wrong with a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("role is {0:?}, allowed is admin or reader")]
pub struct BadRole(String);

impl FromStr for Role {
    type Err = BadRole;

    fn from_str(value: &str) -> Result<Self, BadRole> {
        let known = Role::ALL.iter().copied().find(|role| role.as_str() == value);
        known.ok_or_else(|| BadRole(value.chars().take(64).collect()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_as_it_is_written() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(*role));
        }
        for bad in ["", "Admin", "root"] {
            assert!(bad.parse::<Role>().is_err(), "{bad:?} was let in");
        }
        assert!(Role::Admin > Role::Reader);
    }
}
