//! TLS on the listener: certificates from files, handshakes within bounds, clients known by their certificates.
//!
//! - A node speaks TLS or it does not: with `LASTPONG_TLS_CERT` nothing is said to anyone before a handshake.
//! - TLS 1.3 and 1.2, with what rustls offers of each, and HTTP/1.1 within. No early data, which could be replayed.
//! - What is in the files counts, as it was when they were last good: a change is taken up without a restart, at SIGHUP
//!   or when it is next looked for, and one that does not hold together is logged and left. Sessions go on as they are.
//! - A handshake that is under way costs memory, so there are only so many, and each has a time; its place is
//!   held until the head of the first request is there ([`Handshakes`]). Until its ClientHello is there ([`hello::is_whole`])
//!   a connection costs none.
//!
//! Left out on purpose: certificates by server name, fetching them (ACME), and lists of revoked clients; a device that
//! lost its key is revoked by its id up to now, or banned, and certificates that are short-lived run out by themselves.

mod client;
mod files;
mod handshakes;
pub mod hello;
mod reload;
mod stream;

pub use client::{Client, NoDevice};
pub use files::{Files, TlsError};
pub use handshakes::{Addresses, Handshakes, is_foul};
pub use reload::Tls;
pub use stream::Stream;
