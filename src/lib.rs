//! lastpong: it knows the moment a device is gone, why, and tells everyone who needs to know.
//!
//! # The map, in the order in which data flows
//!
//! | room | holds |
//! | --- | --- |
//! | [`front`] | what stands before HTTP: connections until their first request is there |
//! | [`upgrade`] | requests that become sockets: devices and subscribers |
//! | [`session`] | one connection of one device: handshake, socket, liveness |
//! | [`supervisor`] | who is here and until when: deadlines, takeover, admission, snapshots |
//! | [`projection`] | live state and the record, compared with the sessions and kept like them |
//! | [`cluster`] | many nodes on one record: leases, the ends of lost nodes, what peers did |
//! | [`registry`] | the one writer of the record, in group commits |
//! | [`store`] | the record itself: sessions and the event log, in SQL |
//! | [`login`] | users: their passwords, and the logins that last |
//! | [`bans`] | who may not come in |
//! | [`revoked`] | which tokens are good no more |
//! | [`feed`] | reading the log: live, from memory, or from the store |
//! | [`http`] | everyone who asks: subscribers, operators, probes |
//! | [`startup`] | wires the above, and takes it down in order |
//! | [`swarm`] | apart from all of them: simulated devices, which see lastpong from outside |
//! | [`watch`] | as much apart: the terminal view of an operator |
//!
//! The leaves below them know nothing of each other's state: [`ids`], [`time`], [`reason`], [`event`],
//! [`protocol`], [`problem`], [`rate`], [`breaker`], [`chaos`], [`metrics`], [`config`], [`log_filter`], [`peer`], [`role`],
//! [`schema`], [`secret`], [`tls`], [`token`], [`trace`].
//!
//! # What holds everywhere
//!
//! - A device is welcomed only when its session's start is durable; from then on there is exactly one end.
//! - The starts and ends of a device pass one place (the root supervisor) and one writer (the registry) in order.
//! - An event is durable before anyone is told of it.
//! - No deadline passes while this process stands still ([`supervisor::clock`]).
//! - Every queue is bounded, and counts what it refuses.
//! - No `unsafe`, but for two calls of the system that have no safe form, each with its reason (`session::tcp`,
//!   `session::poller`).

#![deny(unsafe_code)]

pub mod bans;
pub mod breaker;
pub mod chaos;
pub mod cluster;
pub mod config;
pub mod event;
pub mod feed;
pub mod front;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
pub mod http;
pub mod ids;
pub mod log_filter;
pub mod login;
pub mod metrics;
pub mod peer;
pub mod problem;
pub mod projection;
pub mod protocol;
pub mod rate;
pub mod reason;
pub mod registry;
pub mod revoked;
pub mod role;
pub mod schema;
pub mod secret;
pub mod session;
pub mod startup;
pub mod store;
pub mod supervisor;
pub mod swarm;
pub mod time;
pub mod tls;
pub mod token;
pub mod trace;
pub mod upgrade;
pub mod watch;

#[cfg(test)]
mod random_tests;
