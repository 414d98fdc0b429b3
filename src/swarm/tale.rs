//! What a device can tell of a session: how it ended, and its pings and pongs.

/// How a session ended, as its device saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    CloseFrame,
    Eof,
    Reset,
    Error,
    /// The device ended it, and nothing came before.
    Own,
    /// The run was over first.
    Left,
}

impl How {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CloseFrame => "close_frame",
            Self::Eof => "eof",
            Self::Reset => "reset",
            Self::Error => "error",
            Self::Own => "self",
            Self::Left => "left",
        }
    }
}

/// What the record says of a session at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tale {
    pub pings: u32,
    pub pongs: u32,
    pub lost: u32,
    pub slowest_us: u32,
    pub(super) lost_since: i64,
    pub(super) last_pong_at: i64,
    pub(super) welcome_at: i64,
}

impl Tale {
    pub fn last_pong_at(&self) -> Option<i64> {
        (self.last_pong_at != 0).then_some(self.last_pong_at)
    }

    pub fn welcome_at(&self) -> i64 {
        self.welcome_at
    }
}
