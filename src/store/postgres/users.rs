//! Users and their logins in Postgres, the same for every node.
//!
//! What takes several statements begins with the one that decides, so that a call that was cut short leaves nothing
//! behind but logins of a credential that nobody has, which are believed no more.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::FutureExt;
use uuid::Uuid;

use super::PostgresStore;
use super::schema::{logins, users};
use crate::ids::UserName;
use crate::store::StoreError;
use crate::store::users::{
    self as kept, Credential, Login, MOST_LOGINS, NewLogin, Password, TokenHash, User,
};
use crate::time::Timestamp;

impl PostgresStore {
    pub async fn add_user(&self, user: User) -> Result<bool, StoreError> {
        self.writing
            .call(move |conn| {
                async move {
                    let row = (
                        users::name.eq(user.name.as_str()),
                        users::role.eq(user.role.as_str()),
                        users::password.eq(user.password.hash.expose()),
                        users::credential.eq(user.password.credential.0),
                        users::created_at.eq(user.created_at.0),
                        users::changed_at.eq(user.changed_at.0),
                    );
                    let added =
                        diesel::insert_into(users::table).values(row).on_conflict(users::name).do_nothing();
                    Ok(added.execute(conn).await? == 1)
                }
                .boxed()
            })
            .await
    }

    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        self.reading
            .call(|conn| {
                async move {
                    let rows = users::table.order(users::name).load(conn).await?;
                    rows.into_iter().map(|row| kept::user(row, credential)).collect()
                }
                .boxed()
            })
            .await
    }

    pub async fn user(&self, name: &UserName) -> Result<Option<User>, StoreError> {
        let name = name.clone();
        self.reading
            .call(move |conn| {
                async move {
                    let row = users::table.find(name.as_str()).first(conn).await.optional()?;
                    row.map(|row| kept::user(row, credential)).transpose()
                }
                .boxed()
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
        self.writing
            .call(move |conn| {
                async move {
                    let before = credential_of(conn, &name).await?;
                    let changed = diesel::update(users::table.find(name.as_str())).set((
                        users::password.eq(password.hash.expose()),
                        users::credential.eq(password.credential.0),
                        users::changed_at.eq(at.0),
                    ));
                    let changed = changed.execute(conn).await? == 1;
                    end_logins(conn, before).await?;
                    Ok(changed)
                }
                .boxed()
            })
            .await
    }

    pub async fn remove_user(&self, name: &UserName) -> Result<bool, StoreError> {
        let name = name.clone();
        self.writing
            .call(move |conn| {
                async move {
                    let before = credential_of(conn, &name).await?;
                    let removed = diesel::delete(users::table.find(name.as_str())).execute(conn).await? == 1;
                    end_logins(conn, before).await?;
                    Ok(removed)
                }
                .boxed()
            })
            .await
    }

    pub async fn open_login(&self, login: NewLogin) -> Result<(), StoreError> {
        self.writing.call(move |conn| async move { open(conn, &login).await }.boxed()).await
    }

    pub async fn login(&self, token: TokenHash) -> Result<Option<Login>, StoreError> {
        self.reading
            .call(move |conn| {
                async move {
                    let row = logins::table
                        .inner_join(users::table.on(users::credential.eq(logins::credential)))
                        .filter(logins::token.eq(&token.0[..]))
                        .select((users::name, users::role, logins::kind, logins::used_at, logins::expires_at))
                        .first(conn)
                        .await
                        .optional()?;
                    row.map(kept::login).transpose()
                }
                .boxed()
            })
            .await
    }

    pub async fn touch_login(&self, token: TokenHash, at: Timestamp) -> Result<(), StoreError> {
        self.writing
            .call(move |conn| {
                async move {
                    let login = logins::table.find(&token.0[..]);
                    diesel::update(login).set(logins::used_at.eq(at.0)).execute(conn).await?;
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    pub async fn end_login(&self, token: TokenHash) -> Result<(), StoreError> {
        self.writing
            .call(move |conn| {
                async move {
                    diesel::delete(logins::table.find(&token.0[..])).execute(conn).await?;
                    Ok(())
                }
                .boxed()
            })
            .await
    }
}

fn credential(id: Uuid) -> Result<Credential, StoreError> {
    Ok(Credential(id))
}

async fn credential_of(conn: &mut AsyncPgConnection, name: &UserName) -> Result<Option<Uuid>, StoreError> {
    Ok(users::table.find(name.as_str()).select(users::credential).first(conn).await.optional()?)
}

async fn end_logins(conn: &mut AsyncPgConnection, of: Option<Uuid>) -> Result<(), StoreError> {
    if let Some(credential) = of {
        diesel::delete(logins::table.filter(logins::credential.eq(credential))).execute(conn).await?;
    }
    Ok(())
}

async fn open(conn: &mut AsyncPgConnection, login: &NewLogin) -> Result<(), StoreError> {
    let row = (
        logins::token.eq(&login.token.0[..]),
        logins::credential.eq(login.credential.0),
        logins::kind.eq(login.kind.as_str()),
        logins::created_at.eq(login.at.0),
        logins::used_at.eq(login.at.0),
        logins::expires_at.eq(login.expires_at.0),
    );
    diesel::insert_into(logins::table).values(row).execute(conn).await?;
    diesel::delete(logins::table.filter(logins::expires_at.lt(login.at.0))).execute(conn).await?;
    let oldest: Vec<Vec<u8>> = logins::table
        .filter(logins::credential.eq(login.credential.0))
        .order(logins::created_at.desc())
        .limit(MOST_LOGINS)
        .offset(MOST_LOGINS)
        .select(logins::token)
        .load(conn)
        .await?;
    diesel::delete(logins::table.filter(logins::token.eq_any(oldest))).execute(conn).await?;
    Ok(())
}
