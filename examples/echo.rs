//! The socket layer of lastpong as an echo server, for conformance suites: `echo HOST:PORT`, WebSocket on `/ws`.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use actix_codec::Framed;
use actix_http::body::BodySize;
use actix_http::h1::{Codec, Message};
use actix_http::ws::{handshake_response, verify_handshake};
use actix_http::{HttpService, Request, Response, StatusCode};
use anyhow::Context as _;
use futures_util::{SinkExt, StreamExt};
use lastpong::session::frames::{Frame, FrameLimits, Inbound, Violation};
use lastpong::session::socket::{Incoming, Received, Socket};
use tokio::net::TcpStream;

type Connection = Framed<TcpStream, Codec>;

const LIMITS: FrameLimits = FrameLimits { frame: 32 << 20, message: 32 << 20 };
const MAX_OUTPUT: u32 = 64 << 20;
const NO_PROGRESS: Duration = Duration::from_secs(60);

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).context("usage: echo HOST:PORT")?;
    let service = || {
        HttpService::build()
            .upgrade(|(request, connection): (Request, Connection)| async {
                if let Err(error) = upgrade(request, connection).await {
                    eprintln!("a handshake could not be answered: {error}");
                }
                Ok::<_, Infallible>(())
            })
            .h1(|_: Request| async { Ok::<_, Infallible>(Response::new(StatusCode::NOT_FOUND)) })
            .tcp()
    };
    actix_server::Server::build().bind("echo", &address, service)?.run().await?;
    Ok(())
}

async fn upgrade(request: Request, mut connection: Connection) -> std::io::Result<()> {
    if request.path() != "/ws" || verify_handshake(request.head()).is_err() {
        let refusal = Response::new(StatusCode::BAD_REQUEST).drop_body();
        return connection.send(Message::Item((refusal, BodySize::None))).await;
    }
    let answer = handshake_response(request.head()).finish().drop_body();
    connection.send(Message::Item((answer, BodySize::None))).await?;
    let parts = connection.into_parts();
    let socket = Rc::new(Socket::new(parts.io, MAX_OUTPUT, NO_PROGRESS)?);
    actix_web::rt::spawn(echo(socket.clone(), Incoming::new(socket, LIMITS, parts.read_buf)));
    Ok(())
}

async fn echo(socket: Rc<Socket>, mut incoming: Incoming<Socket>) {
    let mut closed = false;
    while let Some(received) = incoming.next().await {
        let answer = match &received {
            _ if closed => continue,
            Received::Frame(Inbound::Text(text)) => {
                Frame::Text(std::str::from_utf8(text).unwrap_or_default())
            }
            Received::Frame(Inbound::Binary(data)) => Frame::Binary(data),
            Received::Frame(Inbound::Ping(data)) => Frame::Pong(data),
            Received::Frame(Inbound::Close(code)) => Frame::Close(*code),
            Received::Violation(Violation::Protocol) => Frame::Close(Some(1002)),
            Received::Violation(Violation::Utf8) => Frame::Close(Some(1007)),
            Received::Violation(Violation::TooBig) => Frame::Close(Some(1009)),
            Received::Frame(Inbound::Fragment | Inbound::Pong(_)) => continue,
            Received::Gone(_) => return,
        };
        closed = matches!(answer, Frame::Close(_));
        if closed {
            socket.send_last(answer);
        } else if socket.send(answer).is_err() {
            return socket.shut();
        }
    }
}
