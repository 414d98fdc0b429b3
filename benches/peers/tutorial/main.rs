//! The heartbeat server of the actix documentation's WebSocket tutorial, as people copy it: an actor for each
//! connection on `actix-web-actors`, which pings by `run_interval` and looks at each turn when it was last answered.
//!
//! What differs from the tutorial: the interval and the time a client may be silent are arguments, and it says where it
//! listens. It keeps no record, knows no devices and tells nobody.
#![allow(
    deprecated,
    reason = "it shows what the tutorial's server costs, and the tutorial uses actix-web-actors"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, AsyncContext, StreamHandler};
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, web};
use actix_web_actors::ws;
use clap::Parser;

/// An actor a connection, as the actix tutorial has it.
#[derive(Debug, Clone, Copy, Parser)]
struct Options {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// From one ping to the next, in milliseconds.
    #[arg(long, default_value_t = 5_000)]
    interval_ms: u64,
    /// How long a client may be silent, in milliseconds.
    #[arg(long, default_value_t = 10_000)]
    timeout_ms: u64,
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

struct MyWebSocket {
    hb: Instant,
    options: Options,
}

impl MyWebSocket {
    fn hb(&self, ctx: &mut ws::WebsocketContext<Self>) {
        ctx.run_interval(Duration::from_millis(self.options.interval_ms), |act, ctx| {
            if Instant::now().duration_since(act.hb) > Duration::from_millis(act.options.timeout_ms) {
                ctx.stop();
                return;
            }
            ctx.ping(b"");
        });
    }
}

impl Actor for MyWebSocket {
    type Context = ws::WebsocketContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.hb(ctx);
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for MyWebSocket {
    fn handle(&mut self, msg: Result<ws::Message, ws::ProtocolError>, ctx: &mut Self::Context) {
        match msg {
            Ok(ws::Message::Ping(msg)) => {
                self.hb = Instant::now();
                ctx.pong(&msg);
            }
            Ok(ws::Message::Pong(_)) => self.hb = Instant::now(),
            Ok(ws::Message::Text(text)) => ctx.text(text),
            Ok(ws::Message::Binary(bin)) => ctx.binary(bin),
            Ok(ws::Message::Close(reason)) => {
                ctx.close(reason);
                ctx.stop();
            }
            _ => ctx.stop(),
        }
    }
}

async fn index(
    request: HttpRequest,
    stream: web::Payload,
    options: web::Data<Options>,
) -> Result<HttpResponse, Error> {
    ws::start(MyWebSocket { hb: Instant::now(), options: **options }, &request, stream)
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let app = move || App::new().app_data(web::Data::new(options)).route("/ws", web::get().to(index));
    let server = HttpServer::new(app).workers(options.workers).bind(options.bind)?;
    for addr in server.addrs() {
        println!("listening on {addr}");
    }
    server.run().await?;
    Ok(())
}
