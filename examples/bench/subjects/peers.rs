//! The servers that lastpong is measured beside.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::Subject;
use crate::line::Figures;
use crate::process::{Process, clean, find};
use crate::world::World;

pub struct Peer {
    pub process: Process,
    pub addr: SocketAddr,
    pub settings: Map<String, Value>,
    /// Where it works.
    _dir: TempDir,
}

/// The program of a peer.
///
/// # Errors
/// Where it is not here.
pub fn program(peer: Subject, world: &World) -> anyhow::Result<PathBuf> {
    let own = |name: &str| Some(world.peers.join(name)).filter(|file| file.is_file());
    let (name, found) = match peer {
        Subject::Tutorial => ("peer-tutorial", own("peer-tutorial")),
        Subject::Tungstenite => ("peer-tungstenite", own("peer-tungstenite")),
        Subject::Mosquitto => ("mosquitto", find("mosquitto")),
        _ => ("nats-server", find("nats-server")),
    };
    found.with_context(|| format!("there is no {name}"))
}

/// # Errors
/// Where it does not come up.
pub fn start(peer: Subject, world: &World, interval: Duration) -> anyhow::Result<Peer> {
    let dir = TempDir::with_prefix("lastpong-bench-peer-")?;
    let log = dir.path().join("log");
    let mut command = clean(&program(peer, world)?);
    command.current_dir(dir.path());
    let (interval_ms, timeout_ms) = (interval.as_millis(), interval.as_millis() * 2);
    let settings = Figures::default().and("ping_interval_ms", interval_ms as u64);
    if matches!(peer, Subject::Tutorial | Subject::Tungstenite) {
        command.args(["--interval-ms", &interval_ms.to_string(), "--timeout-ms", &timeout_ms.to_string()]);
        command.args(["--workers", &world.workers.to_string()]);
        let mut process = Process::start(command, &log)?;
        let said = process.says("listening on ")?;
        let addr = said.parse().with_context(|| format!("no address: {said}"))?;
        let settings = settings.and("workers", world.workers).0;
        return Ok(Peer { process, addr, settings, _dir: dir });
    }
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let file = dir.path().join("config");
    match peer {
        Subject::Mosquitto => {
            fs::write(&file, mosquitto(free_port()?, addr.port()))?;
            command.arg("-c").arg(&file);
        }
        _ => {
            fs::write(&file, nats(free_port()?, addr.port(), interval))?;
            command.arg("-c").arg(&file).env("GOMAXPROCS", world.workers.to_string());
        }
    }
    let mut process = Process::start(command, &log)?;
    process.until("to listen", || TcpStream::connect(addr).ok())?;
    Ok(Peer { process, addr, settings: settings.0, _dir: dir })
}

/// Its clients ping it, so the interval is the load's alone. With no listener but for WebSocket it would not start.
fn mosquitto(port: u16, websocket: u16) -> String {
    let mut text = format!(
        "listener {port} 127.0.0.1\nlistener {websocket} 127.0.0.1\nprotocol websockets\n\
         allow_anonymous true\npersistence false\n\
         log_dest stderr\nlog_type error\nconnection_messages false\n"
    );
    if rustix::process::geteuid().is_root() {
        // It would become a user that may not read this folder.
        text += "user root\n";
    }
    text
}

fn nats(port: u16, websocket: u16, interval: Duration) -> String {
    format!(
        "host: 127.0.0.1\nport: {port}\nping_interval: \"{}ms\"\nping_max: 2\n\
         websocket {{ host: 127.0.0.1, port: {websocket}, no_tls: true }}\n",
        interval.as_millis()
    )
}

/// A port that nobody has just now on whichever address, for Mosquitto's WebSocket listener is on all of them. Those that
/// the system gives to outgoing connections, of which a load leaves many thousands behind, are left out.
fn free_port() -> anyhow::Result<u16> {
    let free = (0..100).map(|_| rand::random_range(20_000..32_000)).find(|port| {
        let tried = Socket::new(Domain::IPV4, Type::STREAM, None);
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port));
        tried.and_then(|socket| socket.bind(&any.into())).is_ok()
    });
    free.context("no port is free")
}
