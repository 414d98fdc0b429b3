//! The socket layer of lastpong as an echo server, for conformance suites: `echo HOST:PORT`, WebSocket on `/ws`.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use actix_codec::Framed;
use actix_http::body::BodySize;
use actix_http::h1::{Codec, Message};
use actix_http::ws::{handshake_response, verify_handshake};
use actix_http::{HttpService, Request, Response, StatusCode};
use actix_service::fn_service;
use anyhow::Context as _;
use futures_util::SinkExt;
use lastpong::session::frames::{Frame, FrameLimits, Inbound, Violation};
use lastpong::session::poller::{Owner, Poller};
use lastpong::session::socket::{Limits, Received, Socket};
use tokio::net::TcpStream;

type Connection = Framed<TcpStream, Codec>;

const LIMITS: Limits = Limits {
    frames: FrameLimits { frame: 32 << 20, message: 32 << 20 },
    output: 64 << 20,
    output_of_all: usize::MAX,
    no_progress: Duration::from_secs(60),
};

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).context("usage: echo HOST:PORT")?;
    let service = || {
        let poller = Poller::start().expect("an epoll for each worker");
        HttpService::build()
            .upgrade(fn_service(move |(request, connection): (Request, Connection)| {
                let poller = poller.clone();
                async move {
                    if let Err(error) = upgrade(request, connection, poller).await {
                        eprintln!("a handshake could not be answered: {error}");
                    }
                    Ok::<_, Infallible>(())
                }
            }))
            .h1(|_: Request| async { Ok::<_, Infallible>(Response::new(StatusCode::NOT_FOUND)) })
            .tcp()
    };
    actix_server::Server::build().bind("echo", &address, service)?.run().await?;
    Ok(())
}

async fn upgrade(request: Request, mut connection: Connection, poller: Rc<Poller>) -> std::io::Result<()> {
    if request.path() != "/ws" || verify_handshake(request.head()).is_err() {
        let refusal = Response::new(StatusCode::BAD_REQUEST).drop_body();
        return connection.send(Message::Item((refusal, BodySize::None))).await;
    }
    let answer = handshake_response(request.head()).finish().drop_body();
    connection.send(Message::Item((answer, BodySize::None))).await?;
    let parts = connection.into_parts();
    let socket = Socket::new(parts.io, parts.read_buf, LIMITS, poller)?;
    let echo = Rc::new(Echo { socket, closed: Cell::new(false) });
    echo.socket.listen(echo.clone())
}

struct Echo {
    socket: Socket,
    closed: Cell<bool>,
}

impl Owner for Echo {
    fn on_ready(&self) -> bool {
        self.socket.on_ready(|received| self.received(received))
    }

    fn crashed(&self) {
        self.socket.shut();
    }
}

impl Echo {
    fn received(&self, received: Received) {
        let answer = match &received {
            Received::Gone(_) => return self.socket.shut(),
            Received::Bytes(_) => return,
            _ if self.closed.get() => return,
            Received::Frame(Inbound::Text(text)) => {
                Frame::Text(std::str::from_utf8(text).unwrap_or_default())
            }
            Received::Frame(Inbound::Binary(data)) => Frame::Binary(data),
            Received::Frame(Inbound::Ping(data)) => Frame::Pong(data),
            Received::Frame(Inbound::Close(code)) => Frame::Close(*code),
            Received::Violation(Violation::Protocol) => Frame::Close(Some(1002)),
            Received::Violation(Violation::Utf8) => Frame::Close(Some(1007)),
            Received::Violation(Violation::TooBig) => Frame::Close(Some(1009)),
            Received::Frame(Inbound::Fragment | Inbound::Pong(_)) | Received::Answer(_) => return,
        };
        if matches!(answer, Frame::Close(_)) {
            self.closed.set(true);
            self.socket.send_last(answer);
        } else if self.socket.send(answer).is_err() {
            self.socket.shut();
        }
    }
}
