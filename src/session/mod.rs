//! One connection of one device.
//!
//! [`handshake`] decides who comes in; [`actor::SessionActor`] reads the socket; [`life::Session`] is what the
//! actor and its supervisor share: identity, liveness, socket. The pure part is [`state::Liveness`].

pub mod actor;
pub mod handshake;
pub mod life;
pub mod socket;
pub mod state;
