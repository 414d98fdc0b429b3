//! A batch of writes, turned over: an array for each of the function's parameters.

use uuid::Uuid;

use crate::ids::EventId;
use crate::store::{Start, StoreError, Told, Write};

#[derive(Default)]
pub(super) struct Columns {
    pub is_end: Vec<bool>,
    pub past: Vec<bool>,
    pub event_ids: Vec<Uuid>,
    pub session_ids: Vec<Uuid>,
    pub device_ids: Vec<String>,
    pub device_types: Vec<String>,
    pub node_ids: Vec<String>,
    pub runs: Vec<Uuid>,
    pub times: Vec<i64>,
    pub datas: Vec<String>,
    pub remote_addrs: Vec<Option<String>>,
    pub metas: Vec<Option<String>>,
    pub trace_ids: Vec<Option<String>>,
    pub reasons: Vec<Option<&'static str>>,
    pub last_pongs: Vec<Option<i64>>,
    pub last_actives: Vec<Option<i64>>,
    pub reconnects: Vec<Option<i64>>,
    /// Of the event that a start may make beside its own.
    pub flap_ids: Vec<Option<Uuid>>,
}

impl Columns {
    pub fn of<'a>(writes: impl Iterator<Item = &'a Write>) -> Result<Self, StoreError> {
        let mut columns = Columns::default();
        for write in writes {
            columns.push(write)?;
        }
        Ok(columns)
    }

    fn push(&mut self, write: &Write) -> Result<(), StoreError> {
        let (event_id, session_id, device_id, device_type, node_id, run) = match write {
            Write::Start(Start { event_id, data: d, .. }) => {
                (event_id, d.session_id, &d.device_id, &d.device_type, &d.node_id, d.incarnation)
            }
            Write::End(end) => {
                let d = &end.data;
                (&end.event_id, d.session_id, &d.device_id, &d.device_type, &d.node_id, d.incarnation)
            }
        };
        self.event_ids.push(event_id.0);
        self.session_ids.push(session_id.0);
        self.device_ids.push(device_id.as_str().to_owned());
        self.device_types.push(device_type.as_str().to_owned());
        self.node_ids.push(node_id.as_str().to_owned());
        self.runs.push(run.0);
        let start = match write {
            Write::Start(start) => Some(start),
            Write::End(_) => None,
        };
        let end = match write {
            Write::Start(_) => None,
            Write::End(end) => Some(&*end.data),
        };
        self.flap_ids.push(start.map(|_| EventId::new().0));
        self.is_end.push(end.is_some());
        self.past.push(start.is_some_and(|start| start.told == Told::Past));
        let data = start.map(|start| &*start.data);
        self.times.extend(data.map(|d| d.connected_at.0).or(end.map(|d| d.disconnected_at.0)));
        self.datas.push(match write {
            Write::Start(start) => to_json(&*start.data)?,
            Write::End(end) => to_json(&*end.data)?,
        });
        self.remote_addrs.push(data.map(|d| d.remote_addr.to_string()));
        self.metas.push(data.map(|d| to_json(&d.meta)).transpose()?);
        self.trace_ids.push(data.and_then(|d| d.trace_id.clone()));
        self.reasons.push(end.map(|d| d.reason.as_str()));
        self.last_pongs.push(end.and_then(|d| d.last_pong_at).map(|t| t.0));
        self.last_actives.push(end.map(|d| d.last_active_at.0));
        self.reconnects.push(end.map(|d| i64::from(d.reconnect_count)));
        Ok(())
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Broken(format!("a row cannot be written: {error}")))
}
