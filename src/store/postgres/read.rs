//! What is read. Each statement sees one state of the database; where an answer takes several, the end of the log is
//! read first and bounds the rest, because up to there nothing changes any more but what leaves with age.

use std::collections::HashMap;
use std::sync::Arc;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::rows::{ACTIVE, LogRow, SessionRow};
use super::schema::{events, log_head, session_records};
use crate::event::{Event, EventRow};
use crate::ids::{DeviceId, Run, SessionId};
use crate::store::{EventFilter, EventPage, HistoryFilter, LogBounds, Match, SessionRecord, StoreError};

/// Rows of the log that one call looks at, at most, along one [`Track`].
const STRETCH: usize = 4_096;

/// Rows that are fetched at once where most may not be wanted; then twice as many.
const FIRST_FETCH: usize = 256;

/// Devices that are read along their own index one by one; more are picked out of the whole log.
const MOST_TRACKS: usize = 8;

pub(super) async fn bounds(conn: &mut AsyncPgConnection) -> Result<LogBounds, StoreError> {
    // Both of one state of the record: an end that moved in between would make the log look empty.
    let oldest = events::table.select(events::seq).order(events::seq).limit(1).single_value();
    let head = log_head::table.filter(log_head::id.eq(1)).select((log_head::newest, oldest));
    let (newest, oldest): (i64, Option<i64>) = head.first(conn).await?;
    Ok(LogBounds { oldest: oldest.unwrap_or(newest + 1), newest })
}

/// The last `seq` used.
async fn newest(conn: &mut AsyncPgConnection) -> Result<i64, StoreError> {
    Ok(log_head::table.filter(log_head::id.eq(1)).select(log_head::newest).first(conn).await?)
}

pub(super) async fn events(
    conn: &mut AsyncPgConnection,
    after: i64,
    filter: &EventFilter,
    limit: usize,
) -> Result<EventPage, StoreError> {
    if limit == 0 {
        return Ok(EventPage { events: Vec::new(), scanned_to: after });
    }
    let newest = newest(conn).await?;
    let mut page = EventPage { events: Vec::new(), scanned_to: newest.max(after) };
    for track in Track::of(filter) {
        let part = read_track(conn, &track, after, newest, filter, limit).await?;
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

async fn read_track(
    conn: &mut AsyncPgConnection,
    track: &Track,
    after: i64,
    newest: i64,
    filter: &EventFilter,
    limit: usize,
) -> Result<EventPage, StoreError> {
    let mut page = EventPage { events: Vec::new(), scanned_to: after };
    let wants_all = *filter == EventFilter::default();
    let (mut looked_at, mut fetch) = (0, if wants_all { limit } else { limit.max(FIRST_FETCH) });
    while looked_at < STRETCH {
        fetch = fetch.min(STRETCH - looked_at);
        let rows: Vec<LogRow> =
            along(track, page.scanned_to, newest, fetch).select(LogRow::as_select()).load(conn).await?;
        let is_last = rows.len() < fetch;
        looked_at += rows.len();
        for row in rows {
            page.scanned_to = row.seq;
            if filter.wants(&row.traits()) {
                page.events.push(Arc::new(Event::from(EventRow::try_from(row)?)));
                if page.events.len() == limit {
                    return Ok(page);
                }
            }
        }
        if is_last {
            page.scanned_to = newest.max(after);
            break;
        }
        fetch *= 2;
    }
    Ok(page)
}

/// A stretch of the log, as far as it is on the track.
fn along(track: &Track, after: i64, newest: i64, rows: usize) -> events::BoxedQuery<'_, Pg> {
    let stretch = events::table
        .filter(events::seq.gt(after))
        .filter(events::seq.le(newest))
        .order(events::seq)
        .limit(row_limit(rows))
        .into_boxed::<Pg>();
    match track {
        Track::Device(id) => stretch.filter(events::device_id.eq(id.as_str())),
        Track::Whole => stretch,
    }
}

pub(super) async fn history(
    conn: &mut AsyncPgConnection,
    filter: &HistoryFilter,
    limit: usize,
) -> Result<Vec<SessionRecord>, StoreError> {
    let query = closed(filter).order(session_records::end_seq.desc()).limit(row_limit(limit));
    let query = match filter.before {
        Some(before) => query.filter(session_records::end_seq.lt(before)),
        None => query,
    };
    let rows = query.select(SessionRow::as_select()).load(conn).await?;
    records(conn, rows).await
}

pub(super) async fn history_total(
    conn: &mut AsyncPgConnection,
    filter: &HistoryFilter,
) -> Result<u64, StoreError> {
    let total: i64 = closed(filter).count().get_result(conn).await?;
    Ok(total.unsigned_abs())
}

pub(super) async fn session(
    conn: &mut AsyncPgConnection,
    id: SessionId,
) -> Result<Option<SessionRecord>, StoreError> {
    Ok(sessions(conn, &[id]).await?.pop())
}

pub(super) async fn sessions(
    conn: &mut AsyncPgConnection,
    ids: &[SessionId],
) -> Result<Vec<SessionRecord>, StoreError> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let rows = session_records::table
        .filter(session_records::session_id.eq_any(ids))
        .select(SessionRow::as_select())
        .load(conn)
        .await?;
    records(conn, rows).await
}

pub(super) async fn active_of(
    conn: &mut AsyncPgConnection,
    devices: &[DeviceId],
) -> Result<Vec<SessionRecord>, StoreError> {
    let devices: Vec<_> = devices.iter().map(DeviceId::as_str).collect();
    // In the words of the index that keeps who is there by device.
    let rows = session_records::table
        .filter(session_records::end_seq.is_null())
        .filter(session_records::device_id.eq_any(devices))
        .order(session_records::session_id)
        .select(SessionRow::as_select())
        .load(conn)
        .await?;
    records(conn, rows).await
}

pub(super) async fn active_page(
    conn: &mut AsyncPgConnection,
    run: &Run,
    after: Option<SessionId>,
    limit: usize,
) -> Result<Vec<SessionRecord>, StoreError> {
    let after = after.map_or(uuid::Uuid::nil(), |id| id.0);
    let rows = session_records::table
        .filter(session_records::status.eq(ACTIVE))
        .filter(session_records::node_id.eq(run.node_id.as_str()))
        .filter(session_records::incarnation.eq(run.incarnation.0))
        .filter(session_records::session_id.gt(after))
        .order(session_records::session_id)
        .limit(row_limit(limit))
        .select(SessionRow::as_select())
        .load(conn)
        .await?;
    records(conn, rows).await
}

/// The closed sessions that the filter leaves, on all pages. That they have an end on the log says that they are
/// closed, in the words of the indexes that keep history in order.
fn closed(filter: &HistoryFilter) -> session_records::BoxedQuery<'_, Pg> {
    let mut query = session_records::table.filter(session_records::end_seq.is_not_null()).into_boxed();
    match &filter.device_id {
        Some(Match::Is(id)) => query = query.filter(session_records::device_id.eq(id.as_str())),
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

/// Rows with what the events of their ends say.
async fn records(
    conn: &mut AsyncPgConnection,
    rows: Vec<SessionRow>,
) -> Result<Vec<SessionRecord>, StoreError> {
    let ends: Vec<i64> = rows.iter().filter_map(|row| row.end_seq).collect();
    let mut said = HashMap::new();
    if !ends.is_empty() {
        let found: Vec<(i64, String)> = events::table
            .filter(events::seq.eq_any(ends))
            .select((events::seq, events::data))
            .load(conn)
            .await?;
        said.extend(found);
    }
    rows.into_iter()
        .map(|row| {
            let end = row.end_seq.and_then(|seq| said.remove(&seq));
            row.into_record(end)
        })
        .collect()
}

pub(super) fn row_limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
