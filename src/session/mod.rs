//! One connection of one device.
//!
//! [`handshake`] decides who comes in; [`actor::SessionActor`] reads the socket; [`life::Session`] is what the
//! actor and its supervisor share: identity, liveness, socket. The pure parts are [`state::Liveness`] and the
//! decoder in [`frames`].

pub mod actor;
pub mod frames;
pub mod handshake;
pub mod house;
pub mod life;
pub mod socket;
pub mod state;
