//! Who is measured: how each is started, how devices speak to it, and what it can not do.
//!
//! Every server gets two threads for its work where it lets itself be told, pings at the interval of the row, and gives
//! up a client that was silent for twice as long.

pub mod lastpong;
mod peers;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

use crate::load::{Client, Dialect};
use crate::world::World;
pub use lastpong::{Lastpong, Setup};
use peers::Peer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Lastpong(Setup),
    /// Another build of lastpong, without stores.
    Other,
    /// What a row measures lastpong by, where that is no server for devices.
    Reference(&'static str),
    Tutorial,
    Tungstenite,
    Mosquitto,
    Nats,
}

impl Subject {
    pub const PEERS: [Self; 4] = [Self::Tutorial, Self::Tungstenite, Self::Mosquitto, Self::Nats];

    pub fn name(self) -> &'static str {
        match self {
            Self::Lastpong(Setup::Embedded) => "lastpong",
            Self::Lastpong(Setup::Stores) => "lastpong/postgres",
            Self::Other => "other",
            Self::Reference(name) => name,
            Self::Tutorial => "tutorial",
            Self::Tungstenite => "tungstenite",
            Self::Mosquitto => "mosquitto",
            Self::Nats => "nats-server",
        }
    }

    fn dialect(self) -> Dialect {
        match self {
            Self::Lastpong(_) | Self::Other => Dialect::Lastpong,
            Self::Mosquitto => Dialect::Mqtt,
            Self::Nats => Dialect::Nats,
            _ => Dialect::Plain,
        }
    }

    /// What is missing to start it, where something is.
    pub fn missing(self, world: &World) -> Option<String> {
        match self {
            Self::Lastpong(_) | Self::Other | Self::Reference(_) => None,
            peer => peers::program(peer, world).err().map(|error| error.to_string()),
        }
    }
}

/// A server that runs, as far as rows that measure any of them care.
pub struct Server {
    pub subject: Subject,
    pub addr: SocketAddr,
    pub pid: u32,
    pub interval: Duration,
    /// What it was told that it would not do by itself.
    pub settings: serde_json::Map<String, serde_json::Value>,
    lastpong: Option<Lastpong>,
    _peer: Option<Peer>,
}

impl Server {
    /// Starts one that pings, or is pinged, at this interval.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start(subject: Subject, world: &World, interval: Duration) -> anyhow::Result<Self> {
        if matches!(subject, Subject::Lastpong(_) | Subject::Other) {
            let lastpong = Lastpong::start(world, subject, &[("PING_INTERVAL", &text(interval))])?;
            return Ok(Self::of(subject, lastpong, interval));
        }
        let peer = peers::start(subject, world, interval)?;
        let (addr, pid, settings) = (peer.addr, peer.process.pid(), peer.settings.clone());
        Ok(Self { subject, addr, pid, interval, settings, lastpong: None, _peer: Some(peer) })
    }

    /// A lastpong that runs already, and pings at this interval.
    pub fn of(subject: Subject, lastpong: Lastpong, interval: Duration) -> Self {
        let (addr, pid, settings) = (lastpong.addr, lastpong.pid(), lastpong.told());
        Self { subject, addr, pid, interval, settings, lastpong: Some(lastpong), _peer: None }
    }

    /// # Errors
    /// Where it is another.
    pub fn lastpong(&self) -> anyhow::Result<&Lastpong> {
        let name = self.subject.name();
        self.lastpong.as_ref().with_context(|| format!("{name} can not do what is measured here"))
    }

    /// Devices for it; none is connected yet.
    ///
    /// # Errors
    /// Where there can be none.
    pub fn load(&self) -> anyhow::Result<Client> {
        self.load_of("bench")
    }

    /// The same, of devices with this beginning of their names.
    ///
    /// # Errors
    /// Where there can be none.
    pub fn load_of(&self, prefix: &str) -> anyhow::Result<Client> {
        let secret = self.lastpong.as_ref().map(Lastpong::token_secret);
        Client::start(self.addr, self.subject.dialect(), self.interval, prefix, secret)
    }

    /// Waits until it has put the ends of so many sessions behind it, since it started.
    ///
    /// # Errors
    /// Where that takes too long.
    pub fn has_ended(&self, sessions: u64) -> anyhow::Result<()> {
        match &self.lastpong {
            Some(lastpong) => lastpong.has_ended(sessions),
            None => {
                // The others do not tell.
                std::thread::sleep(Duration::from_secs(1));
                Ok(())
            }
        }
    }
}

/// A duration as settings have it.
pub fn text(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
