//! Supervision: who is here, until when, and what of it the registry must know.
//!
//! [`worker::WorkerSupervisor`] looks after the sessions of one thread through its [`roster::Roster`];
//! [`root::RootSupervisor`] keeps the order of each device over all threads. What a session is, beyond its
//! deadlines, is not known here: see [`roster::Child`].

pub mod admission;
pub mod clock;
pub mod closeup;
pub(crate) mod directory;
mod drain;
pub mod inspector;
pub mod messages;
pub mod root;
pub mod roster;
pub mod snapshot;
pub mod suspects;
mod wheel;
pub mod worker;

pub use inspector::Inspector;
