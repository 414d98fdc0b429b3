//! What is read, inside a transaction that shows one state of the database throughout.

use diesel::SqliteConnection;
use diesel::prelude::*;
use diesel::query_builder::QueryFragment;
use diesel::query_dsl::LoadQuery;
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::Sqlite;

use super::rows::{ACTIVE, LogRow, SessionRow};
use crate::event::{Event, EventRow};
use crate::ids::{DeviceId, Run, SessionId};
use crate::store::schema::{events, log_head, session_records};
use crate::store::{EventFilter, EventPage, HistoryFilter, LogBounds, Match, SessionRecord, StoreError};

/// Rows of the log that one call looks at, at most, along one [`Track`].
const STRETCH: usize = 4_096;

/// Devices that are read along their own index one by one; more are picked out of the whole log.
const MOST_TRACKS: usize = 8;

pub(super) fn bounds(conn: &mut SqliteConnection) -> Result<LogBounds, StoreError> {
    let newest = newest(conn)?;
    let oldest: Option<i64> = events::table.select(events::seq).order(events::seq).first(conn).optional()?;
    Ok(LogBounds { oldest: oldest.unwrap_or(newest + 1), newest })
}

/// The last `seq` used.
pub(super) fn newest(conn: &mut SqliteConnection) -> Result<i64, StoreError> {
    Ok(log_head::table.select(log_head::newest).first(conn)?)
}

pub(super) fn events(
    conn: &mut SqliteConnection,
    after: i64,
    filter: &EventFilter,
    limit: usize,
) -> Result<EventPage, StoreError> {
    if limit == 0 {
        return Ok(EventPage { events: Vec::new(), scanned_to: after });
    }
    let newest = newest(conn)?;
    let mut page = EventPage { events: Vec::new(), scanned_to: newest.max(after) };
    for track in Track::of(filter) {
        let part = read_track(conn, &track, after, newest, filter, limit)?;
        page.scanned_to = page.scanned_to.min(part.scanned_to);
        page.events.extend(part.events);
    }
    // Each track was read up to a place of its own; what lies beyond the nearest is left to the next page.
    page.events.sort_unstable_by_key(|event| event.seq);
    let told = page.events.partition_point(|event| event.seq <= page.scanned_to).min(limit);
    if told < page.events.len() {
        page.events.truncate(told);
        if let Some(last) = page.events.last().filter(|_| told == limit) {
            page.scanned_to = last.seq;
        }
    }
    Ok(page)
}

/// A way through the log on which all that the filter wants can be met.
enum Track {
    Device(String),
    Whole,
}

impl Track {
    fn of(filter: &EventFilter) -> Vec<Track> {
        let mut devices = Vec::new();
        for wanted in &filter.device_ids {
            match wanted {
                Match::Is(id) => devices.push(id.clone()),
                Match::StartsWith(_) => return vec![Track::Whole],
            }
        }
        devices.sort_unstable();
        devices.dedup();
        if devices.is_empty() || devices.len() > MOST_TRACKS {
            return vec![Track::Whole];
        }
        devices.into_iter().map(Track::Device).collect()
    }
}

fn read_track(
    conn: &mut SqliteConnection,
    track: &Track,
    after: i64,
    newest: i64,
    filter: &EventFilter,
    limit: usize,
) -> Result<EventPage, StoreError> {
    let mut page = EventPage { events: Vec::new(), scanned_to: after };
    let mut rows = 0;
    for row in along(track, after).select(LogRow::as_select()).load_iter::<LogRow, _>(conn)? {
        let row = row?;
        rows += 1;
        page.scanned_to = row.seq;
        if filter.wants(&row.traits()) {
            page.events.push(std::sync::Arc::new(Event::from(EventRow::try_from(row)?)));
            if page.events.len() == limit {
                return Ok(page);
            }
        }
    }
    if rows < STRETCH {
        page.scanned_to = newest.max(after);
    }
    Ok(page)
}

/// A stretch of the log, as far as it is on the track.
fn along(track: &Track, after: i64) -> events::BoxedQuery<'_, Sqlite> {
    let stretch = events::table
        .filter(events::seq.gt(after))
        .order(events::seq)
        .limit(row_limit(STRETCH))
        .into_boxed::<Sqlite>();
    match track {
        Track::Device(id) => stretch.filter(events::device_id.eq(id.as_str())),
        Track::Whole => stretch,
    }
}

pub(super) fn history(
    conn: &mut SqliteConnection,
    filter: &HistoryFilter,
    limit: usize,
) -> Result<Vec<SessionRecord>, StoreError> {
    let rows: Vec<SessionRow> = newest_ends(filter, limit).select(SessionRow::as_select()).load(conn)?;
    rows.into_iter().map(|row| record(conn, row)).collect()
}

fn newest_ends(filter: &HistoryFilter, limit: usize) -> session_records::BoxedQuery<'_, Sqlite> {
    let query = closed(filter).order(session_records::end_seq.desc()).limit(row_limit(limit));
    match filter.before {
        Some(before) => query.filter(session_records::end_seq.lt(before)),
        None => query,
    }
}

pub(super) fn history_total(conn: &mut SqliteConnection, filter: &HistoryFilter) -> Result<u64, StoreError> {
    let total: i64 = closed(filter).count().get_result(conn)?;
    Ok(total.unsigned_abs())
}

pub(super) fn session(
    conn: &mut SqliteConnection,
    id: SessionId,
) -> Result<Option<SessionRecord>, StoreError> {
    let row =
        session_records::table.find(id.to_string()).select(SessionRow::as_select()).first(conn).optional()?;
    row.map(|row| record(conn, row)).transpose()
}

pub(super) fn sessions(
    conn: &mut SqliteConnection,
    ids: &[SessionId],
) -> Result<Vec<SessionRecord>, StoreError> {
    ids.iter().filter_map(|id| session(conn, *id).transpose()).collect()
}

pub(super) fn active_of(
    conn: &mut SqliteConnection,
    devices: &[DeviceId],
) -> Result<Vec<SessionRecord>, StoreError> {
    let mut found = Vec::new();
    // One by one, so that each is a look into the index of devices.
    for device in devices {
        let rows: Vec<SessionRow> = session_records::table
            .filter(session_records::device_id.eq(device.as_str()))
            .filter(session_records::status.eq(ACTIVE))
            .order(session_records::session_id)
            .select(SessionRow::as_select())
            .load(conn)?;
        found.extend(rows);
    }
    found.into_iter().map(|row| record(conn, row)).collect()
}

pub(super) fn active_page(
    conn: &mut SqliteConnection,
    run: &Run,
    after: Option<SessionId>,
    limit: usize,
) -> Result<Vec<SessionRecord>, StoreError> {
    let rows: Vec<SessionRow> = run_from(run, after, limit).load(conn)?;
    rows.into_iter().map(|row| record(conn, row)).collect()
}

/// SQLite is told the index: it would rather gather all that is active and sort it, for each page anew.
fn run_from(
    run: &Run,
    after: Option<SessionId>,
    limit: usize,
) -> impl QueryFragment<Sqlite> + LoadQuery<'static, SqliteConnection, SessionRow> {
    diesel::sql_query(
        "SELECT * FROM session_records INDEXED BY session_records_active \
         WHERE status = 'active' AND session_id > ? AND node_id = ? AND incarnation = ? ORDER BY session_id LIMIT ?",
    )
    .bind::<Text, _>(after.map_or(String::new(), |id| id.to_string()))
    .bind::<Text, _>(run.node_id.to_string())
    .bind::<Text, _>(run.incarnation.to_string())
    .bind::<BigInt, _>(row_limit(limit))
}

/// The closed sessions that the filter leaves, on all pages. That they have an end on the log says that they are
/// closed, in the words of the index that keeps history in order.
fn closed(filter: &HistoryFilter) -> session_records::BoxedQuery<'_, Sqlite> {
    let mut query = session_records::table.filter(session_records::end_seq.is_not_null()).into_boxed();
    match &filter.device_id {
        Some(Match::Is(id)) => query = query.filter(session_records::device_id.eq(id.as_str())),
        // A range, because LIKE passes by an index that tells capitals from small letters.
        Some(Match::StartsWith(beginning)) => {
            query = query
                .filter(session_records::device_id.ge(beginning.as_str()))
                .filter(session_records::device_id.lt(format!("{beginning}\u{10ffff}")));
        }
        None => {}
    }
    if let Some(device_type) = &filter.device_type {
        query = query.filter(session_records::device_type.eq(device_type.as_str()));
    }
    if let Some(node_id) = &filter.node_id {
        query = query.filter(session_records::node_id.eq(node_id.as_str()));
    }
    if let Some(reason) = filter.reason {
        query = query.filter(session_records::reason.eq(reason.as_str()));
    }
    query
}

fn record(conn: &mut SqliteConnection, row: SessionRow) -> Result<SessionRecord, StoreError> {
    let end = match row.end_seq {
        Some(seq) => events::table.find(seq).select(events::data).first(conn).optional()?,
        None => None,
    };
    row.into_record(end)
}

pub(super) fn row_limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use diesel::debug_query;

    use super::*;

    #[derive(QueryableByName)]
    struct Step {
        #[diesel(sql_type = Text)]
        detail: String,
    }

    /// How SQLite goes about a query, in its own words.
    fn plan(
        conn: &mut SqliteConnection,
        query: &impl diesel::query_builder::QueryFragment<Sqlite>,
    ) -> Vec<String> {
        let explain = format!("EXPLAIN QUERY PLAN {}", debug_query::<Sqlite, _>(query));
        let steps: Vec<Step> = diesel::sql_query(explain).load(conn).unwrap();
        steps.into_iter().map(|step| step.detail).collect()
    }

    #[test]
    fn long_tables_are_read_by_their_indexes() {
        let dir = tempfile::TempDir::new().unwrap();
        let opened = super::super::open::open(&dir.path().join("lastpong.db"), Default::default()).unwrap();
        let mut conn = opened.conn;
        let mut goes = |query: &dyn Fn(&mut SqliteConnection) -> Vec<String>, expected: &[&str]| {
            assert_eq!(query(&mut conn), expected);
        };
        let device = || HistoryFilter { device_id: Some(Match::Is("a".into())), ..Default::default() };
        let later = HistoryFilter { before: Some(9), ..Default::default() };
        goes(
            &|c| plan(c, &newest_ends(&HistoryFilter::default(), 9)),
            &["SEARCH session_records USING INDEX session_records_by_end_seq (end_seq>?)"],
        );
        goes(
            &|c| plan(c, &newest_ends(&later, 9)),
            &["SEARCH session_records USING INDEX session_records_by_end_seq (end_seq>? AND end_seq<?)"],
        );
        let by_device = [
            "SEARCH session_records USING INDEX session_records_by_device (device_id=?)",
            "USE TEMP B-TREE FOR ORDER BY",
        ];
        goes(&|c| plan(c, &newest_ends(&device(), 9)), &by_device);
        goes(&|c| plan(c, &newest_ends(&HistoryFilter { before: Some(9), ..device() }, 9)), &by_device);
        goes(
            &|c| plan(c, &along(&Track::Device("a".into()), 9)),
            &["SEARCH events USING INDEX events_by_device (device_id=? AND rowid>?)"],
        );
        let run = Run { node_id: "n".parse().unwrap(), incarnation: crate::ids::Incarnation::new() };
        goes(
            &|c| plan(c, &run_from(&run, Some(SessionId::new()), 9)),
            &["SEARCH session_records USING INDEX session_records_active (session_id>?)"],
        );
        goes(&|c| plan(c, &along(&Track::Whole, 9)), &["SEARCH events USING INTEGER PRIMARY KEY (rowid>?)"]);
    }
}
