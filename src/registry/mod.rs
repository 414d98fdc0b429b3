//! The registry: the one writer of this node's record.
//!
//! [`actor::Registry`] takes what the root supervisor hands it, commits it in groups, then lets the feed and
//! the root know. Nothing is told before it is durable (promise P3), and nothing it took is dropped: what the
//! store refuses goes to the node's journal and is moved when the store is back ([`course`], [`drain`]); without a
//! journal it is asked again until it is taken.

pub mod actor;
pub mod batch;
pub mod course;
pub mod drain;
pub mod messages;
mod work;

#[cfg(test)]
mod tests;
