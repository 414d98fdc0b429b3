//! Users and their logins in the SQLite file.

use diesel::SqliteConnection;
use diesel::prelude::*;

use super::SqliteStore;
use crate::ids::UserName;
use crate::store::StoreError;
use crate::store::schema::{logins, users};
use crate::store::users::{
    self as kept, Credential, Login, MOST_LOGINS, NewLogin, Password, TokenHash, User,
};
use crate::time::Timestamp;

impl SqliteStore {
    pub async fn add_user(&self, user: User) -> Result<bool, StoreError> {
        self.writer
            .run(move |conn| {
                let row = (
                    users::name.eq(user.name.as_str()),
                    users::role.eq(user.role.as_str()),
                    users::password.eq(user.password.hash.expose()),
                    users::credential.eq(user.password.credential.0.to_string()),
                    users::created_at.eq(user.created_at.0),
                    users::changed_at.eq(user.changed_at.0),
                );
                let added =
                    diesel::insert_into(users::table).values(row).on_conflict(users::name).do_nothing();
                Ok(added.execute(conn)? == 1)
            })
            .await
    }

    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        self.read(|conn| {
            let rows = users::table.order(users::name).load(conn)?;
            rows.into_iter().map(|row| kept::user(row, credential)).collect()
        })
        .await
    }

    pub async fn user(&self, name: &UserName) -> Result<Option<User>, StoreError> {
        let name = name.clone();
        self.read(move |conn| {
            let row = users::table.find(name.as_str()).first(conn).optional()?;
            row.map(|row| kept::user(row, credential)).transpose()
        })
        .await
    }

    pub async fn set_password(
        &self,
        name: &UserName,
        password: Password,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let name = name.clone();
        self.writer
            .run(move |conn| {
                end_logins(conn, &name)?;
                let changed = diesel::update(users::table.find(name.as_str())).set((
                    users::password.eq(password.hash.expose()),
                    users::credential.eq(password.credential.0.to_string()),
                    users::changed_at.eq(at.0),
                ));
                Ok(changed.execute(conn)? == 1)
            })
            .await
    }

    pub async fn remove_user(&self, name: &UserName) -> Result<bool, StoreError> {
        let name = name.clone();
        self.writer
            .run(move |conn| {
                end_logins(conn, &name)?;
                Ok(diesel::delete(users::table.find(name.as_str())).execute(conn)? == 1)
            })
            .await
    }

    pub async fn open_login(&self, login: NewLogin) -> Result<(), StoreError> {
        self.writer.run(move |conn| open(conn, &login)).await
    }

    pub async fn login(&self, token: TokenHash) -> Result<Option<Login>, StoreError> {
        self.read(move |conn| {
            let row = logins::table
                .inner_join(users::table.on(users::credential.eq(logins::credential)))
                .filter(logins::token.eq(&token.0[..]))
                .select((users::name, users::role, logins::kind, logins::used_at, logins::expires_at))
                .first(conn)
                .optional()?;
            row.map(kept::login).transpose()
        })
        .await
    }

    pub async fn touch_login(&self, token: TokenHash, at: Timestamp) -> Result<(), StoreError> {
        self.writer
            .run(move |conn| {
                let login = logins::table.find(&token.0[..]);
                diesel::update(login).set(logins::used_at.eq(at.0)).execute(conn)?;
                Ok(())
            })
            .await
    }

    pub async fn end_login(&self, token: TokenHash) -> Result<(), StoreError> {
        self.writer
            .run(move |conn| {
                diesel::delete(logins::table.find(&token.0[..])).execute(conn)?;
                Ok(())
            })
            .await
    }
}

fn credential(text: String) -> Result<Credential, StoreError> {
    text.parse().map(Credential).map_err(|_| StoreError::bad_row("users", "credential", &text))
}

fn end_logins(conn: &mut SqliteConnection, name: &UserName) -> Result<(), StoreError> {
    let of_user = users::table.find(name.as_str()).select(users::credential);
    diesel::delete(logins::table.filter(logins::credential.eq_any(of_user))).execute(conn)?;
    Ok(())
}

fn open(conn: &mut SqliteConnection, login: &NewLogin) -> Result<(), StoreError> {
    let credential = login.credential.0.to_string();
    diesel::delete(logins::table.filter(logins::expires_at.lt(login.at.0))).execute(conn)?;
    let oldest: Vec<Vec<u8>> = logins::table
        .filter(logins::credential.eq(&credential))
        .order(logins::created_at.desc())
        .limit(MOST_LOGINS)
        .offset(MOST_LOGINS - 1)
        .select(logins::token)
        .load(conn)?;
    diesel::delete(logins::table.filter(logins::token.eq_any(oldest))).execute(conn)?;
    let row = (
        logins::token.eq(&login.token.0[..]),
        logins::credential.eq(credential),
        logins::kind.eq(login.kind.as_str()),
        logins::created_at.eq(login.at.0),
        logins::used_at.eq(login.at.0),
        logins::expires_at.eq(login.expires_at.0),
    );
    diesel::insert_into(logins::table).values(row).execute(conn)?;
    Ok(())
}
