//! A connection as HTTP has it: plain or within TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::client::{Client, NoDevice};

pub enum Stream {
    Plain(TcpStream),
    /// After its handshake.
    Tls(Box<Within>),
}

pub struct Within {
    stream: TlsStream<TcpStream>,
    /// Read already, for whoever reads next.
    ahead: BytesMut,
}

impl Stream {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(within) => within.stream.get_ref().0,
        }
    }

    /// Who is at the other end, as its certificate says; none where it showed none.
    ///
    /// # Errors
    /// The certificate, though it is of an authority that is trusted, is not that of a device.
    pub fn client(&self) -> Result<Option<Client>, NoDevice> {
        let Self::Tls(within) = self else { return Ok(None) };
        let chain = within.stream.get_ref().1.peer_certificates();
        chain.and_then(<[_]>::first).map(Client::of).transpose()
    }

    /// Gives back what was read of it, within TLS.
    pub fn unread(&mut self, bytes: BytesMut) {
        if let Self::Tls(within) = self {
            within.ahead = bytes;
        }
    }

    /// The connection, the TLS on it with all that it holds of both directions, and what was read of it before that.
    pub fn into_parts(self) -> (TcpStream, Option<ServerConnection>, BytesMut) {
        match self {
            Self::Plain(stream) => (stream, None, BytesMut::new()),
            Self::Tls(within) => {
                let (stream, tls) = within.stream.into_inner();
                (stream, Some(tls), within.ahead)
            }
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl From<TlsStream<TcpStream>> for Stream {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(Within { stream, ahead: BytesMut::new() }))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(within) if within.ahead.is_empty() => Pin::new(&mut within.stream).poll_read(cx, into),
            Self::Tls(within) => {
                let some = within.ahead.len().min(into.remaining());
                into.put_slice(&within.ahead.split_to(some));
                if within.ahead.is_empty() {
                    within.ahead = BytesMut::new();
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(within) => Pin::new(&mut within.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(within) => Pin::new(&mut within.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(within) => Pin::new(&mut within.stream).poll_shutdown(cx),
        }
    }
}
