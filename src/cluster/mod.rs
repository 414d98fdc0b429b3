//! Several nodes on one record: who is alive, who is not, and what of their doing concerns this node.
//!
//! - [`lease`] judges peers, as a pure core; [`membership`] is the actor that renews this node's lease, declares the
//!   dead lost and ends what they held.
//! - [`witness`] tells a cut of this node alone from one of everyone.
//! - [`repairs`] mends where the record and the sessions differ all the same.
//! - [`notices`] reads in the log what others did to sessions of this node: took a device over, kicked it, declared
//!   this node lost.
//! - [`peers`] shows the live sessions of the others to whoever looks at the whole installation.
//! - [`bans`] follows what operators have banned, [`revocations`] which tokens they revoked, and both carry it out here;
//!   [`audit`] moves what they did meanwhile out of the journal. [`flaps`] tells of devices that come and go too often.
//!
//! Nodes do not speak to each other: the record is where they meet. What one decides there in a transaction is so,
//! whoever is stopped, cut off or slow; the others read it.

pub mod audit;
pub mod bans;
pub mod flaps;
pub mod lease;
pub mod membership;
pub mod notices;
pub mod peers;
pub mod repairs;
pub mod revocations;
pub mod witness;

#[cfg(test)]
mod machine_tests;
