//! Why a session ended: one table for everyone who asks.
//!
//! A close carries one [`Reason`]; the table says its initiator and the close code that the device is told,
//! and with the code whether to come back: 4000-4499 with backoff, 4500-4999 not, 1001 elsewhere.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who brought the end about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Initiator {
    Device,
    Network,
    Server,
    Operator,
}

/// What noticed the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DetectedBy {
    /// A close frame, or the device's `bye` before it.
    CloseFrame,
    /// The socket: end of stream, an error, a frame that may not be, output over its bound.
    Socket,
    /// A deadline for a pong.
    Heartbeat,
    /// The supervisor, looking after what the session itself cannot: its panic, its token's time, this node's end.
    Watchdog,
    /// The admin API.
    Operator,
    /// Another node.
    PeerNode,
    /// This node at its next start.
    Recovery,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $initiator:ident, $code:expr;)*) => {
        /// Why a session ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl Reason {
            pub const ALL: &[Reason] = &[$(Reason::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $name),* }
            }

            pub fn initiator(self) -> Initiator {
                match self { $(Reason::$variant => Initiator::$initiator),* }
            }

            /// The code of the close frame that the device is sent, where there is one to send. A protocol
            /// error may also close with 1007, and a device's own close is echoed.
            pub fn close_code(self) -> Option<u16> {
                match self { $(Reason::$variant => $code),* }
            }
        }
    };
}

reasons! {
    /// The device said goodbye: a close frame or `bye`.
    ClientClosed = "client_closed", Device, None;
    /// Reset, or end of stream without a close frame.
    ReadError = "read_error", Network, None;
    /// A write failed or could not make progress.
    PingFailed = "ping_failed", Network, None;
    /// `max_missed_pongs` in a row were missed.
    PongTimeout = "pong_timeout", Network, Some(4012);
    /// More output was waiting for the device than its bound.
    SlowConsumer = "slow_consumer", Device, Some(4008);
    /// A violation of RFC 6455.
    ProtocolError = "protocol_error", Device, Some(1002);
    /// A frame or message over the limit.
    MessageTooBig = "message_too_big", Device, Some(1009);
    /// Too many frames.
    RateLimited = "rate_limited", Device, Some(4013);
    /// The same device connected again.
    Replaced = "replaced", Server, Some(4509);
    /// An operator ended the session.
    Kicked = "kicked", Operator, Some(4011);
    /// An operator banned the device.
    Banned = "banned", Operator, Some(4503);
    /// The token's time was over.
    TokenExpired = "token_expired", Server, Some(4005);
    /// The token was revoked.
    TokenRevoked = "token_revoked", Server, Some(4500);
    /// This node shut down in good order.
    Draining = "draining", Server, Some(1001);
    /// The session's node died or lost its lease. One that lives on to say so sends its devices this code.
    NodeLost = "node_lost", Server, Some(4000);
    /// The device did not return in its resume window.
    ResumeExpired = "resume_expired", Network, None;
    /// A fault of ours.
    InternalError = "internal_error", Server, Some(1011);
}

crate::schema::schema_of!(
    Reason,
    crate::schema::word("Why a session ended.", Reason::ALL.iter().map(|r| r.as_str()))
);

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(value: &str) -> Result<Self, UnknownReason> {
        Reason::ALL
            .iter()
            .copied()
            .find(|r| r.as_str() == value)
            .ok_or_else(|| UnknownReason(value.to_owned()))
    }
}

/// A word that is no [`Reason`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no reason")]
pub struct UnknownReason(String);
