//! Who may still come in: the node's limits, bans and revoked tokens, asked by every worker before an upgrade is answered.
//!
//! A [`Pass`] counts its session for as long as it lives. Nothing here waits, and nothing is recorded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::bans::Bans;
use crate::rate::Rate;
use crate::revoked::Revoked;
use crate::time::Mono;

/// Facts that may be on their way to the store before newcomers are asked to wait: some seconds of its work.
const MAX_BACKLOG: usize = 50_000;

/// The limits; zero is none.
#[derive(Debug, Clone)]
pub struct Limits {
    pub sessions: usize,
    pub sessions_per_ip: usize,
    pub handshakes_per_sec: u32,
}

#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    live: AtomicUsize,
    per_ip: Mutex<HashMap<IpAddr, usize>>,
    handshakes: Option<Mutex<Rate>>,
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
        Arc::new(Self {
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

    /// A place for one more session from `ip`.
    pub fn enter(self: &Arc<Self>, ip: IpAddr, now: Mono) -> Result<Pass, Refusal> {
        self.open()?;
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
            Admission::new(Limits { sessions: 2, sessions_per_ip: 1, handshakes_per_sec: 0 }, Arc::default());
        let [a, b, c]: [IpAddr; 3] = ["127.0.0.1", "127.0.0.2", "::1"].map(|ip| ip.parse().unwrap());
        let now = Mono(0);
        let held = admission.enter(a, now).unwrap();
        assert_eq!(admission.enter(a, now).unwrap_err(), Refusal::SessionsPerIp);
        let other = admission.enter(b, now).unwrap();
        assert_eq!(admission.enter(c, now).unwrap_err(), Refusal::Sessions);
        drop((held, other));
        assert!(admission.enter(a, now).is_ok());
        assert!(admission.per_ip.lock().unwrap().is_empty());
        admission.drain(true);
        assert_eq!(admission.enter(a, now).unwrap_err(), Refusal::Draining);
    }
}
