//! Who may still come in: the node's limits, bans and revoked tokens, asked by every worker before an upgrade is answered.
//!
//! A [`Pass`] counts its session for as long as it lives. Nothing here waits, and nothing is recorded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::StatusCode;

use super::suspects::{Hold, Policy, Suspects};
use crate::bans::Bans;
use crate::metrics::Limit;
use crate::peer::subscriber;
use crate::problem::Problem;
use crate::rate::Rate;
use crate::rate::keyed::{Allowance, Keyed};
use crate::revoked::Revoked;
use crate::time::Mono;

/// Facts that may be on their way to the store before newcomers are asked to wait: some seconds of its work.
const MAX_BACKLOG: usize = 50_000;
const RETRY_SECONDS: u64 = 5;
/// Addresses whose handshakes are counted.
const MOST_ADDRESSES: usize = 50_000;

/// The limits; zero is none.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    pub sessions: usize,
    pub sessions_per_ip: usize,
    pub handshakes_per_sec: u32,
    pub handshakes_per_sec_per_ip: u32,
    pub suspects: Policy,
}

#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    live: AtomicUsize,
    per_ip: Mutex<HashMap<IpAddr, usize>>,
    handshakes: Option<Mutex<Rate>>,
    handshakes_per_ip: Option<Mutex<Keyed<IpAddr>>>,
    suspects: Mutex<Suspects>,
    backlog: AtomicUsize,
    draining: AtomicBool,
    store_away: Arc<AtomicBool>,
    bans: Arc<Bans>,
    revoked: Arc<Revoked>,
}

/// Why nobody comes in just now. Each is for the device to wait out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("this node is draining: connect to another")]
    Draining,
    #[error("the store is away or behind: try again later")]
    Overloaded,
    #[error("this node holds its limit of sessions")]
    Sessions,
    #[error("this address holds its limit of sessions")]
    SessionsPerIp,
    #[error("too many handshakes a second")]
    Handshakes { retry_after: Duration },
    #[error("too many handshakes a second from this address")]
    HandshakesPerIp { retry_after: Duration },
    #[error(
        "too much came from this address that was no handshake or had no good token: few handshakes are looked at"
    )]
    Slowed { retry_after: Duration },
    #[error(
        "too much came from this address that was no handshake or had no good token: nothing is looked at for a while"
    )]
    HeldOff { retry_after: Duration },
}

impl Refusal {
    /// The limit that was reached, where it is one.
    pub fn limit(self) -> Option<Limit> {
        match self {
            Self::Draining | Self::Overloaded => None,
            Self::Sessions => Some(Limit::Sessions),
            Self::SessionsPerIp => Some(Limit::SessionsPerIp),
            Self::Handshakes { .. } => Some(Limit::Handshakes),
            Self::HandshakesPerIp { .. } => Some(Limit::HandshakesPerIp),
            Self::Slowed { .. } => Some(Limit::AddressSlowed),
            Self::HeldOff { .. } => Some(Limit::AddressHeldOff),
        }
    }

    /// What is answered, with when to come back.
    pub fn problem(self) -> Problem {
        let detail = self.to_string();
        // Spread, so that those who were refused together do not return together.
        let later = RETRY_SECONDS + rand::random_range(0..=RETRY_SECONDS);
        let soon = |wait: Duration| wait.as_secs() + 1 + rand::random_range(0..=2);
        let seconds = match self {
            Self::Draining | Self::Overloaded => return Problem::unavailable(detail, later),
            Self::Sessions | Self::SessionsPerIp => later,
            Self::Handshakes { retry_after } | Self::HandshakesPerIp { retry_after } => soon(retry_after),
            Self::Slowed { retry_after } => soon(retry_after) + later,
            Self::HeldOff { retry_after } => retry_after.as_secs() + later,
        };
        Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(seconds)
    }
}

/// A session's place within the limits.
#[derive(Debug)]
pub struct Pass {
    admission: Arc<Admission>,
    /// Where its address is counted.
    ip: Option<Box<IpAddr>>,
}

impl Admission {
    /// `store_away` is true while the store does not take what it is given.
    pub fn new(limits: Limits, store_away: Arc<AtomicBool>) -> Arc<Self> {
        let handshakes =
            (limits.handshakes_per_sec > 0).then(|| Mutex::new(Rate::new(limits.handshakes_per_sec)));
        let per_ip = limits.handshakes_per_sec_per_ip;
        let handshakes_per_ip =
            (per_ip > 0).then(|| Mutex::new(Keyed::new(Allowance::per_sec(per_ip), MOST_ADDRESSES)));
        Arc::new(Self {
            suspects: Mutex::new(Suspects::new(limits.suspects.clone())),
            handshakes_per_ip,
            limits,
            live: AtomicUsize::new(0),
            per_ip: Mutex::default(),
            handshakes,
            backlog: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            store_away,
            bans: Arc::default(),
            revoked: Arc::default(),
        })
    }

    pub fn bans(&self) -> &Arc<Bans> {
        &self.bans
    }

    pub fn revoked(&self) -> &Arc<Revoked> {
        &self.revoked
    }

    /// Whether a handshake from there is looked at, whatever it shows. Asked before the work of it.
    pub fn look(&self, ip: IpAddr, now: Mono) -> Result<(), Refusal> {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.look(ip, now).map_err(|hold| match hold {
            Hold::Slowed(retry_after) => Refusal::Slowed { retry_after },
            Hold::Off(retry_after) => Refusal::HeldOff { retry_after },
        })?;
        drop(suspects);
        let Some(rates) = &self.handshakes_per_ip else { return Ok(()) };
        let mut rates = rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.take(&subscriber(ip), now).map_err(|retry_after| Refusal::HandshakesPerIp { retry_after })
    }

    /// Where nothing at all from there is looked at yet.
    pub fn held_off(&self, ip: IpAddr, now: Mono) -> Option<Refusal> {
        if self.limits.suspects.after == 0 {
            return None;
        }
        let suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.held_off(ip, now).map(|retry_after| Refusal::HeldOff { retry_after })
    }

    /// Something came from there that nobody sends who means well.
    pub fn strike(&self, ip: IpAddr, now: Mono) {
        let struck = self.suspects.lock().unwrap_or_else(PoisonError::into_inner).strike(ip, now);
        if let Some(ban) = struck {
            log::warn!(address:% = ip, for_s = ban.as_secs(); "an address is held off: too much came from it that was no handshake, had no good token or broke the protocol");
        }
    }

    /// A place for one more session from `ip`. What has no good token takes nothing from the limit of all.
    pub fn enter(self: &Arc<Self>, ip: IpAddr, now: Mono) -> Result<Pass, Refusal> {
        self.open()?;
        let ip = subscriber(ip);
        if let Some(rate) = &self.handshakes {
            let mut rate = rate.lock().unwrap_or_else(PoisonError::into_inner);
            rate.take(now).map_err(|retry_after| Refusal::Handshakes { retry_after })?;
        }
        let mut pass = Pass { admission: self.clone(), ip: None };
        let before = self.live.fetch_add(1, Relaxed);
        if self.limits.sessions > 0 && before >= self.limits.sessions {
            return Err(Refusal::Sessions);
        }
        if self.limits.sessions_per_ip > 0 {
            let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
            let held = per_ip.entry(ip).or_default();
            if *held >= self.limits.sessions_per_ip {
                return Err(Refusal::SessionsPerIp);
            }
            *held += 1;
            pass.ip = Some(Box::new(ip));
        }
        Ok(pass)
    }

    /// Whether anyone may come in at all.
    pub fn open(&self) -> Result<(), Refusal> {
        if self.is_draining() {
            return Err(Refusal::Draining);
        }
        if self.store_away.load(Relaxed) || self.backlog.load(Relaxed) > MAX_BACKLOG {
            return Err(Refusal::Overloaded);
        }
        Ok(())
    }

    /// Lets nobody in from here on, or everybody again.
    pub fn drain(&self, drains: bool) {
        self.draining.store(drains, Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Whether anyone holds a place: a session, one that is being admitted, or one whose socket is being closed.
    pub fn holds_any(&self) -> bool {
        self.live.load(Relaxed) > 0
    }

    /// Facts on their way to the store.
    pub fn backlog(&self) -> usize {
        self.backlog.load(Relaxed)
    }

    pub fn more_backlog(&self, facts: usize) {
        self.backlog.fetch_add(facts, Relaxed);
    }

    pub fn less_backlog(&self, facts: usize) {
        self.backlog.fetch_sub(facts, Relaxed);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.admission.live.fetch_sub(1, Relaxed);
        let Some(ip) = self.ip.as_deref() else { return };
        let mut per_ip = self.admission.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = per_ip.get_mut(ip) {
            *held -= 1;
            if *held == 0 {
                per_ip.remove(ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back() {
        let admission =
            Admission::new(Limits { sessions: 2, sessions_per_ip: 1, ..Limits::default() }, Arc::default());
        let [a, b, c]: [IpAddr; 3] = ["127.0.0.1", "127.0.0.2", "::1"].map(|ip| ip.parse().unwrap());
        let now = Mono(0);
        let held = admission.enter(a, now).unwrap();
        assert_eq!(admission.enter(a, now).unwrap_err(), Refusal::SessionsPerIp);
        let other = admission.enter(b, now).unwrap();
        assert_eq!(admission.enter(c, now).unwrap_err(), Refusal::Sessions);
        drop((held, other));
        assert!(admission.enter(a, now).is_ok());
        assert!(admission.per_ip.lock().unwrap().is_empty());
        let sharing: [IpAddr; 2] = ["2001:db8::1", "2001:db8::2"].map(|ip| ip.parse().unwrap());
        let _held = admission.enter(sharing[0], now).unwrap();
        assert_eq!(admission.enter(sharing[1], now).unwrap_err(), Refusal::SessionsPerIp, "one /64 is one");
        admission.drain(true);
        assert_eq!(admission.enter(a, now).unwrap_err(), Refusal::Draining);
    }

    #[test]
    fn one_address_does_not_use_up_the_handshakes_of_all() {
        let limits = Limits { handshakes_per_sec: 5, handshakes_per_sec_per_ip: 2, ..Limits::default() };
        let admission = Admission::new(limits, Arc::default());
        let now = Mono(1_000_000);
        let enter = |n: u8| {
            let ip = IpAddr::from([192, 0, 2, n]);
            admission.look(ip, now).and_then(|()| admission.enter(ip, now)).map(drop)
        };
        let refused = (0..10).filter(|_| matches!(enter(1), Err(Refusal::HandshakesPerIp { .. }))).count();
        assert_eq!(refused, 8);
        assert_eq!((2..5).filter(|n| enter(*n).is_ok()).count(), 3);
        assert!(matches!(enter(6), Err(Refusal::Handshakes { .. })));
    }
}
