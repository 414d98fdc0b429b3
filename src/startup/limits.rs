//! The settings as the limits of those who come in.

use crate::config::Settings;
use crate::supervisor::admission::Limits;
use crate::supervisor::suspects::Policy;

pub(super) fn of(settings: &Settings) -> Limits {
    Limits {
        sessions: settings.max_sessions,
        sessions_per_ip: settings.max_sessions_per_ip as usize,
        handshakes_per_sec: settings.handshakes_per_sec,
        handshakes_per_sec_per_ip: settings.handshakes_per_sec_per_ip,
        suspects: Policy {
            after: settings.suspect_after,
            ban: settings.suspect_ban,
            exempt: [&settings.suspect_exempt[..], &settings.trusted_proxies].concat(),
        },
    }
}
