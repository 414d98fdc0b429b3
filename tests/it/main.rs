//! lastpong as a whole: the real program, real sockets, real files; one file a story.
//!
//! Every test starts a program of its own on a port of its own, with a data directory of its own, and speaks to it
//! only from outside. Nothing here waits by sleeping: it waits for a condition, with a deadline that is far away.
//! Stories of many nodes are told small by default, and as big as the environment says ([`support::size`]).
//! Tests that need a thousand sockets take turns ([`support::heavy`]), for one process may hold only so many.

mod support;

mod audit;
mod bans;
mod bench;
mod clients;
mod cluster;
mod crash;
mod debug;
mod degraded;
mod deploy;
mod docs;
mod feed;
mod flapping;
mod frames;
mod handshake;
mod hostile;
mod layers;
mod limits;
mod login;
mod logs;
mod metrics;
mod node;
mod openapi;
mod order;
mod outage;
mod pace;
mod pages;
#[cfg(feature = "chaos")]
mod panic;
mod partition;
mod postgres_outage;
mod python;
mod reasons;
mod redis_outage;
mod secrets;
mod settings;
mod shutdown;
mod stall;
mod stream;
mod swarm;
mod takeover;
mod tls;
mod tokens;
mod traces;
mod watch;
mod whole;
