//! When sessions were last heard, page by page.

use std::collections::HashMap;

use diesel::SqliteConnection;
use diesel::prelude::*;

use super::rows::LostRow;
use crate::ids::{Incarnation, SessionId};
use crate::store::heard::{decode, encode};
use crate::store::schema::last_heard;
use crate::store::{HeardPage, StoreError};

pub(super) fn touch(
    conn: &mut SqliteConnection,
    incarnation: Incarnation,
    pages: &[HeardPage],
) -> Result<(), StoreError> {
    let incarnation = incarnation.to_string();
    for page in pages {
        diesel::replace_into(last_heard::table)
            .values((
                last_heard::incarnation.eq(&incarnation),
                last_heard::page.eq(page.number),
                last_heard::heard.eq(encode(&page.heard)),
            ))
            .execute(conn)?;
    }
    Ok(())
}

/// Puts into the rows of lost sessions what the pages of their runs say later than they do.
pub(super) fn remember(conn: &mut SqliteConnection, lost: &mut [LostRow]) -> Result<(), StoreError> {
    let mut rows: HashMap<SessionId, &mut LostRow> =
        lost.iter_mut().filter_map(|row| Some((row.session_id.parse().ok()?, row))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let pages = last_heard::table
        .select((last_heard::incarnation, last_heard::heard))
        .load_iter::<(String, Vec<u8>), _>(conn)?;
    for page in pages {
        let (incarnation, heard) = page?;
        for sign in decode(&heard) {
            let row = rows.get_mut(&sign.session_id).filter(|row| row.incarnation == incarnation);
            if let Some(row) = row.filter(|row| row.last_active_at < sign.last_active_at.0) {
                row.last_pong_at = sign.last_pong_at.map(|at| at.0);
                row.last_active_at = sign.last_active_at.0;
            }
        }
    }
    Ok(())
}

pub(super) fn forget_all_but(
    conn: &mut SqliteConnection,
    incarnation: Incarnation,
) -> Result<(), StoreError> {
    let others = last_heard::table.filter(last_heard::incarnation.ne(incarnation.to_string()));
    diesel::delete(others).execute(conn)?;
    Ok(())
}
