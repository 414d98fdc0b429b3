//! Requests with an `Upgrade` header, which never reach the routes: the connection is taken over from HTTP.
//!
//! `/ws` becomes a session, `/v1/events/ws` a subscriber; all else is refused here. After the handshake the HTTP
//! side and its buffers are dropped, and what holds the bare socket is all that is left of the connection.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_codec::Framed;
use actix_http::body::BodySize;
use actix_http::h1::{Codec, Message};
use actix_http::header::{self, HeaderValue};
use actix_http::ws::{handshake_response, verify_handshake};
use actix_http::{Request, Response};
use actix_web::error::PayloadError;
use actix_web::web::Data;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, Stream, StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

use crate::http::Doors;
use crate::http::events_ws::{SILENCE, events_ws};
use crate::metrics::Handshake;
use crate::problem::{self, Problem};
use crate::role::Role;
use crate::session::handshake::{Gate, RefusalLog, SUBPROTOCOL, traceparent};
use crate::session::house::House;
use crate::tls::Stream as Wire;
use crate::trace;

type Connection = Framed<Wire, Codec>;

/// How long a peer may take for the answer to its handshake.
const ANSWER: Duration = Duration::from_secs(10);

/// What one worker upgrades connections with.
pub struct Upgrades {
    pub house: Rc<House>,
    pub gate: Arc<Gate>,
    pub doors: Data<Doors>,
    pub log: RefusalLog,
}

impl Upgrades {
    pub async fn serve(self: Rc<Self>, request: Request, connection: Connection) {
        let served = match request.path() {
            "/ws" => self.device(&request, connection).await,
            "/v1/events/ws" => self.subscriber(&request, connection).await,
            path => {
                let problem = Problem::new(
                    actix_http::StatusCode::NOT_FOUND,
                    format!("{:?} does not upgrade", problem::shown(path)),
                );
                refuse(connection, &problem.about("path", path, "/ws, /v1/events/ws")).await
            }
        };
        // Nobody is waiting for it any more: there is nothing to do about it.
        if let Err(error) = served {
            log::debug!(error:% = error, peer:? = self.gate.peer(request.head()); "a handshake could not be answered");
        }
    }

    async fn device(&self, request: &Request, connection: Connection) -> std::io::Result<()> {
        let metrics = &self.house.roster.metrics;
        let traced = trace::handshake(traceparent(&request.head().headers));
        let admitted = self.gate.admit(request.head(), connection.io_ref().client()).await;
        if let Some(traced) = &traced {
            traced.authenticated(admitted.as_ref().err().map(|(outcome, _)| outcome.as_str()));
        }
        match admitted {
            Ok(admitted) => {
                let begun = match accept(request, connection, admitted.subprotocol).await {
                    Ok((stream, read)) => admitted.begin(&self.house, stream, read, traced),
                    Err(error) => {
                        failed(traced, Handshake::Abandoned);
                        Err(error)
                    }
                };
                metrics.handshake(if begun.is_ok() { Handshake::Admitted } else { Handshake::Abandoned });
                begun
            }
            Err((outcome, problem)) => {
                metrics.handshake(outcome);
                failed(traced, outcome);
                self.log.tell(&problem, self.gate.peer(request.head()));
                refuse(connection, &problem).await
            }
        }
    }

    async fn subscriber(&self, request: &Request, connection: Connection) -> std::io::Result<()> {
        let allowed = match verify_handshake(request.head()) {
            Ok(()) => self.doors.auth.allow(request.head(), Role::Reader).await,
            Err(error) => Err(Problem::bad_request(error.to_string())),
        };
        let caller = match allowed {
            Ok(caller) => caller,
            Err(problem) => return refuse(connection, &problem).await,
        };
        // The socket's halves are there only after the answer, and what would be refused must be before it.
        let (give, taken) = tokio::sync::oneshot::channel::<(ReadHalf<Wire>, BytesMut)>();
        let query = request.uri().query().unwrap_or("").to_owned();
        let over = caller.until_over(self.doors.clone());
        let frames = match events_ws(&self.doors, &query, payload(taken), over).await {
            Ok(frames) => frames,
            Err(problem) => return refuse(connection, &problem).await,
        };
        let (stream, read) = accept(request, connection, false).await?;
        let (reader, writer) = split(stream);
        let _ = give.send((reader, read));
        let frames = frames.boxed_local();
        actix_rt::spawn(async move {
            if let Err(error) = pump(frames, writer).await {
                log::debug!(error:% = error; "a subscriber is gone");
            }
        });
        Ok(())
    }
}

fn failed(traced: Option<trace::Handshake>, outcome: Handshake) {
    if let Some(traced) = traced {
        traced.failed(outcome.as_str());
    }
}

/// Answers the handshake and takes the socket out, with what was read after the request.
async fn accept(
    request: &Request,
    mut connection: Connection,
    subprotocol: bool,
) -> std::io::Result<(Wire, BytesMut)> {
    let mut response = handshake_response(request.head());
    if subprotocol {
        response.insert_header((header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL)));
    }
    let head = Message::Item((response.finish().drop_body(), BodySize::None));
    timeout(ANSWER, connection.send(head)).await??;
    let parts = connection.into_parts();
    Ok((parts.io, parts.read_buf))
}

async fn refuse(mut connection: Connection, problem: &Problem) -> std::io::Result<()> {
    let body = problem.body();
    let mut response = Response::build(problem.status);
    response.force_close().insert_header((header::CONTENT_TYPE, problem::CONTENT_TYPE));
    for (name, value) in &problem.headers {
        response.append_header((name.clone(), value.clone()));
    }
    let head = Message::Item((response.finish().drop_body(), BodySize::Sized(body.len() as u64)));
    let answer = async {
        connection.feed(head).await?;
        connection.feed(Message::Chunk(Some(Bytes::from(body)))).await?;
        connection.feed(Message::Chunk(None)).await?;
        SinkExt::<Message<(Response<()>, BodySize)>>::flush(&mut connection).await?;
        connection.into_parts().io.shutdown().await
    };
    timeout(ANSWER, answer).await?
}

/// What a subscriber sends, once its socket is there.
fn payload(
    taken: tokio::sync::oneshot::Receiver<(ReadHalf<Wire>, BytesMut)>,
) -> impl Stream<Item = Result<Bytes, PayloadError>> {
    stream::once(async move {
        match taken.await {
            Ok((reader, read)) => stream::unfold((reader, read), |(mut reader, mut read)| async move {
                if read.is_empty() {
                    match reader.read_buf(&mut read).await {
                        Ok(0) => return None,
                        Ok(_) => {}
                        Err(error) => return Some((Err(PayloadError::Io(error)), (reader, read))),
                    }
                }
                let chunk = read.split().freeze();
                Some((Ok(chunk), (reader, read)))
            })
            .left_stream(),
            Err(_) => stream::empty().right_stream(),
        }
    })
    .flatten()
}

/// Writes a subscriber's frames until there are no more, or it does not take them.
async fn pump(
    mut frames: impl Stream<Item = Result<Bytes, actix_web::Error>> + Unpin,
    mut writer: WriteHalf<Wire>,
) -> std::io::Result<()> {
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|error| std::io::Error::other(error.to_string()))?;
        timeout(SILENCE, writer.write_all(&frame)).await??;
    }
    writer.shutdown().await
}
