//! The registry: the one writer of this node's record.
//!
//! [`actor::Registry`] takes what the root supervisor hands it, commits it in groups, then lets the feed and
//! the root know. Nothing is told before it is durable (promise P3), and nothing it took is dropped: what the
//! store refuses is asked again until it is taken.

pub mod actor;
pub mod batch;
pub mod messages;
