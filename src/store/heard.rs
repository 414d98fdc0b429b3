//! Pages of when sessions were last heard, as bytes: 32 for a session, as the migrations say.

use uuid::Uuid;

use super::LastHeard;
use crate::ids::SessionId;
use crate::time::Timestamp;

const ENTRY: usize = 32;

pub(crate) fn encode(heard: &[LastHeard]) -> Vec<u8> {
    let mut page = Vec::with_capacity(heard.len() * ENTRY);
    for sign in heard {
        page.extend_from_slice(sign.session_id.0.as_bytes());
        page.extend_from_slice(&sign.last_pong_at.map_or(0, |at| at.0).to_be_bytes());
        page.extend_from_slice(&sign.last_active_at.0.to_be_bytes());
    }
    page
}

pub(crate) fn decode(page: &[u8]) -> impl Iterator<Item = LastHeard> + '_ {
    page.chunks_exact(ENTRY).filter_map(decode_entry)
}

fn decode_entry(entry: &[u8]) -> Option<LastHeard> {
    let (id, times) = entry.split_first_chunk()?;
    let (pong, times) = times.split_first_chunk()?;
    let (active, _) = times.split_first_chunk()?;
    let pong = i64::from_be_bytes(*pong);
    Some(LastHeard {
        session_id: SessionId(Uuid::from_bytes(*id)),
        last_pong_at: (pong != 0).then_some(Timestamp(pong)),
        last_active_at: Timestamp(i64::from_be_bytes(*active)),
    })
}
