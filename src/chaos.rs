//! Safeties that can be taken away, to see that their absence is noticed.
//!
//! Only a build with the feature `chaos` can do without one; in every other, [`lacks`] is a constant and its callers are
//! as if it were not there. `CHAOS_WITHOUT` names them, separated by commas: it is no setting of lastpong, and
//! read here alone.

/// What keeps a promise, and can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// `durable_welcome`: a device is welcomed only once its start is durable (promise P1).
    DurableWelcome,
    /// `stall_guard`: no deadline passes while this process stands still, and what lies unread is read before anybody
    /// is judged (promise P4).
    StallGuard,
    /// `recovery`: what ran when its node died is ended as lost (promise P1).
    Recovery,
}

impl Safety {
    #[cfg(feature = "chaos")]
    fn name(self) -> &'static str {
        match self {
            Self::DurableWelcome => "durable_welcome",
            Self::StallGuard => "stall_guard",
            Self::Recovery => "recovery",
        }
    }
}

/// Whether this process is to do without it.
#[cfg(not(feature = "chaos"))]
#[inline(always)]
pub const fn lacks(_: Safety) -> bool {
    false
}

/// Whether this process is to do without it.
#[cfg(feature = "chaos")]
pub fn lacks(safety: Safety) -> bool {
    use std::sync::LazyLock;

    static WITHOUT: LazyLock<String> = LazyLock::new(|| std::env::var("CHAOS_WITHOUT").unwrap_or_default());
    WITHOUT.split(',').any(|name| name == safety.name())
}
