//! Who may log in, and the logins that last.
//!
//! - A login hangs on its user's credential, which is new with each password: it ends with the password and with the
//!   user in the statement that changes them, whatever else is under way, and a user made anew inherits none.
//! - Of a password a PHC string is kept, of a login's token its SHA-256: what lies here opens nothing.
//!
//! Left out on purpose: how long a login lasts and when a token is believed. That is for `login` to say.

use std::path::Path;

use uuid::Uuid;

use super::sqlite::SqliteStore;
use super::{Store, StoreError};
use crate::ids::UserName;
use crate::role::Role;
use crate::secret::Secret;
use crate::time::Timestamp;

/// The logins of one user that are kept; the oldest makes room.
pub(super) const MOST_LOGINS: i64 = 100;

/// Someone who may log in.
#[derive(Debug, Clone)]
pub struct User {
    pub name: UserName,
    pub role: Role,
    pub password: Password,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
}

/// A password as it is kept.
#[derive(Debug, Clone)]
pub struct Password {
    /// A PHC string.
    pub hash: Secret,
    /// New with each password.
    pub credential: Credential,
}

/// What logins hang on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credential(pub Uuid);

impl Credential {
    #[expect(clippy::new_without_default, reason = "each call makes another")]
    pub fn new() -> Self {
        Self(Uuid::new_v4())
    }
}

/// The SHA-256 of a login's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// How a login's token has to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginKind {
    /// In a browser's cookie.
    Cookie,
    /// In a program's `Authorization` header.
    Bearer,
}

impl LoginKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            LoginKind::Cookie => "cookie",
            LoginKind::Bearer => "bearer",
        }
    }

    pub(super) fn parse(value: &str) -> Result<Self, StoreError> {
        match value {
            "cookie" => Ok(LoginKind::Cookie),
            "bearer" => Ok(LoginKind::Bearer),
            other => Err(StoreError::bad_row("logins", "kind", other)),
        }
    }
}

/// A login to be kept.
#[derive(Debug, Clone, Copy)]
pub struct NewLogin {
    pub token: TokenHash,
    pub credential: Credential,
    pub kind: LoginKind,
    pub at: Timestamp,
    pub expires_at: Timestamp,
}

/// A login as it is kept, with its user as he is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: UserName,
    pub role: Role,
    pub kind: LoginKind,
    pub used_at: Timestamp,
    pub expires_at: Timestamp,
}

/// A user's row, but for the credential, whose type is each database's own.
pub(super) type UserRow<C> = (String, String, String, C, i64, i64);

/// A login's row with its user's name and role.
pub(super) type LoginRow = (String, String, String, i64, i64);

pub(super) fn user<C>(
    (name, role, password, credential, created, changed): UserRow<C>,
    read: impl Fn(C) -> Result<Credential, StoreError>,
) -> Result<User, StoreError> {
    Ok(User {
        role: role.parse().map_err(|_| StoreError::bad_row("users", "role", &role))?,
        name: name.parse().map_err(|_| StoreError::bad_row("users", "name", &name))?,
        password: Password { hash: Secret::new(password), credential: read(credential)? },
        created_at: Timestamp(created),
        changed_at: Timestamp(changed),
    })
}

pub(super) fn login((user, role, kind, used, expires): LoginRow) -> Result<Login, StoreError> {
    Ok(Login {
        user: user.parse().map_err(|_| StoreError::bad_row("users", "name", &user))?,
        role: role.parse().map_err(|_| StoreError::bad_row("users", "role", &role))?,
        kind: LoginKind::parse(&kind)?,
        used_at: Timestamp(used),
        expires_at: Timestamp(expires),
    })
}

impl Store {
    /// Opens the SQLite file at `path` as [`Store::open_sqlite`] does, or beside the process that holds it: for the
    /// users and their logins alone, which are no run's. Blocks: for a plain thread.
    ///
    /// # Errors
    ///
    /// As [`Store::open_sqlite`], and where the process that holds it is of an earlier version.
    pub fn open_sqlite_beside(path: &Path) -> Result<Store, StoreError> {
        SqliteStore::open_beside(path).map(Store::Sqlite)
    }

    /// Adds a user; false where the name is taken.
    pub async fn add_user(&self, user: User) -> Result<bool, StoreError> {
        match self {
            Store::Sqlite(s) => s.add_user(user).await,
            Store::Postgres(s) => s.add_user(user).await,
        }
    }

    /// All users, by name.
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        match self {
            Store::Sqlite(s) => s.users().await,
            Store::Postgres(s) => s.users().await,
        }
    }

    pub async fn user(&self, name: &UserName) -> Result<Option<User>, StoreError> {
        match self {
            Store::Sqlite(s) => s.user(name).await,
            Store::Postgres(s) => s.user(name).await,
        }
    }

    /// Gives a user another password, and ends his logins; false where there is no such user.
    pub async fn set_password(
        &self,
        name: &UserName,
        password: Password,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        match self {
            Store::Sqlite(s) => s.set_password(name, password, at).await,
            Store::Postgres(s) => s.set_password(name, password, at).await,
        }
    }

    /// Removes a user, and ends his logins; false where there is no such user.
    pub async fn remove_user(&self, name: &UserName) -> Result<bool, StoreError> {
        match self {
            Store::Sqlite(s) => s.remove_user(name).await,
            Store::Postgres(s) => s.remove_user(name).await,
        }
    }

    /// Keeps a login, and forgets those that are over.
    pub async fn open_login(&self, login: NewLogin) -> Result<(), StoreError> {
        match self {
            Store::Sqlite(s) => s.open_login(login).await,
            Store::Postgres(s) => s.open_login(login).await,
        }
    }

    /// The login of this token, over or not, while its user has the password that it was opened with.
    pub async fn login(&self, token: TokenHash) -> Result<Option<Login>, StoreError> {
        match self {
            Store::Sqlite(s) => s.login(token).await,
            Store::Postgres(s) => s.login(token).await,
        }
    }

    /// Notes that a login was used.
    pub async fn touch_login(&self, token: TokenHash, at: Timestamp) -> Result<(), StoreError> {
        match self {
            Store::Sqlite(s) => s.touch_login(token, at).await,
            Store::Postgres(s) => s.touch_login(token, at).await,
        }
    }

    /// Ends a login; no error where there is none.
    pub async fn end_login(&self, token: TokenHash) -> Result<(), StoreError> {
        match self {
            Store::Sqlite(s) => s.end_login(token).await,
            Store::Postgres(s) => s.end_login(token).await,
        }
    }
}
