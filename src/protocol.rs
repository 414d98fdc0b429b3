//! What lastpong and a device say to each other, as JSON text frames. The shapes are those of the wire, apart
//! from any state.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{DeviceId, NodeId, SessionId};
use crate::time::Timestamp;

/// From lastpong to a device.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToDevice<'a> {
    /// The first frame, once the session's start is durable.
    Welcome {
        session_id: SessionId,
        device_id: &'a DeviceId,
        node_id: &'a NodeId,
        /// Null where the order is not known yet.
        device_seq: Option<i64>,
        ping_interval_ms: u64,
        pong_timeout_ms: u64,
        /// Null where resuming is off.
        resume_token: Option<&'a str>,
        server_time: Timestamp,
    },
    /// Answers a heartbeat; `id` is the heartbeat's own.
    Ack { id: &'a RawValue, code: u16, server_time: Timestamp },
    /// A frame was not understood; the session goes on.
    Error { code: &'static str, message: &'a str },
}

/// The answer to a heartbeat in the lwp dialect.
#[derive(Debug, Serialize)]
struct LwpAck<'a> {
    code: u16,
    headers: LwpHeaders<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LwpHeaders<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    mid: Option<&'a RawValue>,
}

/// From a device.
#[derive(Debug)]
pub enum FromDevice<'a> {
    Heartbeat {
        id: &'a RawValue,
    },
    /// The lwp dialect's heartbeat.
    Lwp {
        mid: Option<&'a RawValue>,
    },
    /// A clean leave.
    Bye,
    /// Panics the session that reads it.
    #[cfg(feature = "chaos")]
    Panic,
}

/// Why a frame was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotUnderstood {
    #[error("not a JSON object")]
    NotJson,
    #[error("no \"type\" and no \"lwp\"; a device sends heartbeat, bye or {{\"lwp\":\"/!\"}}")]
    NoType,
    #[error("unknown type; a device sends heartbeat or bye")]
    UnknownType,
    #[error("unknown lwp path; only \"/!\" is served")]
    UnknownLwp,
    #[error("a binary frame; a device sends JSON text")]
    Binary,
}

impl NotUnderstood {
    pub fn code(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NoType => "no_type",
            Self::UnknownType => "unknown_type",
            Self::UnknownLwp => "unknown_lwp",
            Self::Binary => "binary",
        }
    }
}

#[derive(Deserialize)]
struct AnyFrame<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    lwp: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    headers: Option<&'a RawValue>,
    #[cfg(feature = "chaos")]
    #[serde(borrow, default, rename = "do")]
    act: Option<&'a str>,
}

impl<'a> FromDevice<'a> {
    pub fn parse(text: &'a str) -> Result<Self, NotUnderstood> {
        let frame: AnyFrame<'a> = object(text)?;
        match (frame.kind.as_deref(), frame.lwp.as_deref()) {
            (Some("heartbeat"), _) => Ok(Self::Heartbeat { id: frame.id.unwrap_or(RawValue::NULL) }),
            (Some("bye"), _) => Ok(Self::Bye),
            #[cfg(feature = "chaos")]
            (Some("chaos"), _) if frame.act == Some("panic") => Ok(Self::Panic),
            (Some(_), _) => Err(NotUnderstood::UnknownType),
            (None, Some("/!")) => {
                let headers =
                    frame.headers.map(|headers| object::<LwpHeaders<'a>>(headers.get())).transpose()?;
                Ok(Self::Lwp { mid: headers.and_then(|headers| headers.mid) })
            }
            (None, Some(_)) => Err(NotUnderstood::UnknownLwp),
            (None, None) => Err(NotUnderstood::NoType),
        }
    }
}

/// Serde would also take a list of the members' values for an object.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, NotUnderstood> {
    if !text.trim_start().starts_with('{') {
        return Err(NotUnderstood::NotJson);
    }
    serde_json::from_str(text).map_err(|_| NotUnderstood::NotJson)
}

impl ToDevice<'_> {
    pub fn json(&self) -> String {
        to_json(self)
    }
}

/// `{"code":200,"headers":{"mid":…}}`.
pub fn lwp_ack(mid: Option<&RawValue>) -> String {
    to_json(&LwpAck { code: 200, headers: LwpHeaders { mid } })
}

fn to_json(frame: &impl Serialize) -> String {
    serde_json::to_string(frame).expect("a frame is plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_dialects_are_answered_with_their_own_ids() {
        let Ok(FromDevice::Heartbeat { id }) = FromDevice::parse(r#"{"type":"heartbeat","id":{"n":7}}"#)
        else {
            panic!()
        };
        let ack = ToDevice::Ack { id, code: 200, server_time: Timestamp(0) }.json();
        assert_eq!(
            ack,
            r#"{"type":"ack","id":{"n":7},"code":200,"server_time":"1970-01-01T00:00:00.000000Z"}"#
        );
        let Ok(FromDevice::Lwp { mid }) = FromDevice::parse(r#"{"lwp":"/!","headers":{"mid":"a 0"}}"#) else {
            panic!()
        };
        assert_eq!(lwp_ack(mid), r#"{"code":200,"headers":{"mid":"a 0"}}"#);
        let Ok(FromDevice::Lwp { mid: None }) = FromDevice::parse(r#"{"lwp":"/!"}"#) else { panic!() };
        assert_eq!(lwp_ack(None), r#"{"code":200,"headers":{}}"#);
    }

    #[test]
    fn what_is_not_understood_says_why() {
        for (text, why) in [
            ("", NotUnderstood::NotJson),
            ("[1]", NotUnderstood::NotJson),
            ("{", NotUnderstood::NotJson),
            (r#"{"type":7}"#, NotUnderstood::NotJson),
            (r#"["heartbeat",1]"#, NotUnderstood::NotJson),
            (r#"{"lwp":"/!","headers":["1"]}"#, NotUnderstood::NotJson),
            ("{}", NotUnderstood::NoType),
            (r#"{"type":"greet"}"#, NotUnderstood::UnknownType),
            (r#"{"lwp":"/x"}"#, NotUnderstood::UnknownLwp),
        ] {
            assert_eq!(FromDevice::parse(text).err(), Some(why), "{text}");
        }
    }
}
