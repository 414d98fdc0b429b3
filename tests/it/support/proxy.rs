//! The network between one node and one store: a TCP proxy that can be cut, silenced, slowed and healed.
//!
//! - What is silent holds the bytes and delivers them once it is healed, as TCP does after a cable was out: a node's
//!   late writes arrive late, and are not lost. Neither end is told anything meanwhile, not even of a close.
//! - Every change is at once that of connections there are and of those to come.
//!
//! Left out on purpose: lost or reordered bytes, which TCP lets nobody see.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Connections are closed, and new ones as soon as they are made.
    Cut,
    /// Nothing gets through, either way.
    Silent,
    /// What the store says does not reach the node; what the node says arrives.
    Deaf,
    /// So much later, each piece.
    Slow(Duration),
}

/// A proxy; its connections go with it.
pub struct Proxy {
    pub addr: SocketAddr,
    weather: watch::Sender<Weather>,
    accepting: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToStore,
    ToNode,
}

impl Proxy {
    /// One before what listens at this port of this machine.
    pub async fn to_port(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (weather, now) = watch::channel(Weather::Fair);
        let accepting = tokio::spawn(async move {
            // They end with the task that holds them.
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(connection(near, port, now.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { addr, weather, accepting }
    }

    pub fn turns(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection(near: TcpStream, port: u16, mut weather: watch::Receiver<Weather>) {
    // A close is told by a reset, as a firewall's or a dead machine's successor does.
    let _ = socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO));
    if !passes(&mut weather, Way::ToStore).await {
        return;
    }
    let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = pump(near_in, far_out, weather.clone(), Way::ToStore) => {}
        () = pump(far_in, near_out, weather, Way::ToNode) => {}
    }
}

/// Carries bytes one way until either end closes or the network is cut.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    way: Way,
) {
    let mut bytes = vec![0; 16 << 10];
    while passes(&mut weather, way).await {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            changed = weather.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        // The weather may have turned while they were read: then they wait here.
        let Ok(count) = read else { return };
        if !passes(&mut weather, way).await || count == 0 || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Waits until something may pass this way. False where it never will.
async fn passes(weather: &mut watch::Receiver<Weather>, way: Way) -> bool {
    loop {
        let now = *weather.borrow_and_update();
        match now {
            Weather::Fair => return true,
            Weather::Slow(by) => {
                tokio::time::sleep(by).await;
                return true;
            }
            Weather::Deaf if way == Way::ToStore => return true,
            Weather::Cut => return false,
            Weather::Deaf | Weather::Silent => {
                if weather.changed().await.is_err() {
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{eventually, redis::Redis, within};
    use super::*;

    async fn says(stream: &mut TcpStream, expected: &str) {
        let mut answer = vec![0; expected.len()];
        within("an answer", stream.read_exact(&mut answer)).await.expect("connected");
        assert_eq!(answer, expected.as_bytes());
    }

    #[tokio::test]
    async fn it_holds_what_it_is_told_to_and_loses_nothing() {
        let redis = Redis::start();
        let proxy = Proxy::to_port(redis.port()).await;
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        stream.write_all(b"PING\r\n").await.unwrap();
        says(&mut stream, "+PONG\r\n").await;

        proxy.turns(Weather::Deaf);
        stream.write_all(b"SET a 1\r\n").await.unwrap();
        let set = || redis.command(&["EXISTS", "a"]).int() == 1;
        eventually("the word to arrive", async || set().then_some(())).await;
        proxy.turns(Weather::Silent);
        stream.write_all(b"SET a 2\r\n").await.unwrap();
        let mut late = TcpStream::connect(proxy.addr).await.unwrap();
        late.write_all(b"PING\r\n").await.unwrap();
        let silence = Duration::from_millis(300);
        assert!(tokio::time::timeout(silence, stream.read_u8()).await.is_err(), "an answer got through");
        assert!(tokio::time::timeout(silence, late.read_u8()).await.is_err(), "an answer got through");
        assert_eq!(redis.command(&["GET", "a"]).text(), "1");
        proxy.turns(Weather::Fair);
        says(&mut stream, "+OK\r\n+OK\r\n").await;
        says(&mut late, "+PONG\r\n").await;
        assert_eq!(redis.command(&["GET", "a"]).text(), "2");

        proxy.turns(Weather::Cut);
        let end = within("the end", stream.read_u8()).await;
        assert!(end.is_err(), "it is still connected");
        let mut refused = TcpStream::connect(proxy.addr).await.unwrap();
        assert!(within("the end", refused.read_u8()).await.is_err(), "it is still connected");
    }
}
