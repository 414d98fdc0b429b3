//! A receiver of traces: OTLP over HTTP, with protobuf bodies, as collectors have it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::eventually;

/// One span as it came, with what its resource says.
#[derive(Debug, Clone)]
pub struct Received {
    pub resource: Vec<KeyValue>,
    pub span: Span,
}

impl Received {
    pub fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub fn span_id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub fn parent_id(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    pub fn text(&self, name: &str) -> String {
        text(&self.span.attributes, name)
    }

    /// The spans that it is linked to.
    pub fn links(&self) -> Vec<String> {
        self.span.links.iter().map(|link| hex(&link.span_id)).collect()
    }

    pub fn error(&self) -> Option<String> {
        self.span.status.as_ref().filter(|status| status.code == 2).map(|status| status.message.clone())
    }
}

/// An attribute as text; empty where it is not there.
pub fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|a| a.key == name).and_then(|a| a.value.clone());
    match found {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text,
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A receiver that keeps what it is sent; its listener goes with it.
pub struct Receiver {
    pub addr: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    accepting: JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let keep = received.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, keep.clone()));
            }
        });
        Self { addr, received, accepting }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn all(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }

    /// Waits until a span is there that `wanted` holds of.
    pub async fn span(&self, what: &str, wanted: impl Fn(&Received) -> bool) -> Received {
        eventually(what, async || self.all().into_iter().find(|span| wanted(span))).await
    }

    /// The same by its name.
    pub async fn named(&self, name: &str) -> Received {
        self.span(name, |span| span.span.name == name).await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One request of a connection, which is then closed.
async fn answer(mut stream: TcpStream, keep: Arc<Mutex<Vec<Received>>>) -> Option<()> {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(head) = request.parse(&bytes).expect("a request") {
            assert_eq!((request.method, request.path), (Some("POST"), Some("/v1/traces")));
            let header = |name: &str| {
                let found = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
                found.map(|h| String::from_utf8_lossy(h.value).into_owned()).unwrap_or_default()
            };
            assert_eq!(header("content-type"), "application/x-protobuf");
            break (head, header("content-length").parse::<usize>().expect("a length"));
        }
    };
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let told = ExportTraceServiceRequest::decode(&bytes[head..head + length]).expect("protobuf");
    for of_resource in told.resource_spans {
        let resource = of_resource.resource.unwrap_or_default().attributes;
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            keep.lock().expect("no panic").push(Received { resource: resource.clone(), span });
        }
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(answer).await.ok()
}
