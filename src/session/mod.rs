//! One connection of one device.
//!
//! [`handshake`] decides who comes in; [`life::Session`] is what its actor, its supervisor and its socket's poller
//! share: identity, liveness, socket. [`actor::SessionActor`] begins it, [`poller::Poller`] tells it of what its device
//! sent. The pure parts are [`state::Liveness`] and the decoder in [`frames`].

pub mod actor;
pub(crate) mod asked;
pub mod frames;
pub mod handshake;
mod hearing;
pub mod house;
pub mod life;
mod limits;
mod noted;
pub mod once;
mod output;
pub mod poller;
pub mod socket;
pub mod state;
pub mod tcp;
mod wire;
