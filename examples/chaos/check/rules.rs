//! The contract's table of reasons, and what follows from it for an end record.

/// One row: what a record with this reason may say.
#[derive(Debug)]
pub struct Rule {
    pub reason: &'static str,
    pub initiator: &'static str,
    /// Who can come to know of it.
    pub detected_by: &'static [&'static str],
    pub codes: Codes,
}

#[derive(Debug, Clone, Copy)]
pub enum Codes {
    /// What the device said, if anything.
    Devices,
    /// One of these, or where the list is empty, none.
    OneOf(&'static [u16]),
    /// One of these, or none: the device may not have been there to be told.
    AtMost(&'static [u16]),
}

impl Codes {
    pub fn allow(self, code: Option<u16>) -> bool {
        match (self, code) {
            (Codes::Devices, _) | (Codes::AtMost(_), None) => true,
            (Codes::OneOf(codes), None) => codes.is_empty(),
            (Codes::OneOf(codes) | Codes::AtMost(codes), Some(code)) => codes.contains(&code),
        }
    }
}

const fn rule(
    reason: &'static str,
    initiator: &'static str,
    detected_by: &'static [&'static str],
    codes: Codes,
) -> Rule {
    Rule { reason, initiator, detected_by, codes }
}

#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    rule("client_closed",    "device",   &["close_frame"],                         Codes::Devices),
    rule("read_error",       "network",  &["socket"],                              Codes::OneOf(&[])),
    // A write fails when a ping is due, or when the watch over the output finds that nothing moves.
    rule("ping_failed",      "network",  &["socket", "heartbeat", "watchdog"],     Codes::OneOf(&[])),
    rule("pong_timeout",     "network",  &["heartbeat", "watchdog"],               Codes::OneOf(&[4012])),
    rule("slow_consumer",    "device",   &["socket", "watchdog"],                  Codes::OneOf(&[4008])),
    rule("protocol_error",   "device",   &["socket"],                              Codes::OneOf(&[1002, 1007])),
    rule("message_too_big",  "device",   &["socket"],                              Codes::OneOf(&[1009])),
    rule("rate_limited",     "device",   &["socket"],                              Codes::OneOf(&[4013])),
    // On one node its own directory knows; on another the record does.
    rule("replaced",         "server",   &["watchdog", "peer_node"],               Codes::OneOf(&[4509])),
    rule("kicked",           "operator", &["operator"],                            Codes::OneOf(&[4011])),
    rule("banned",           "operator", &["operator"],                            Codes::OneOf(&[4503])),
    rule("token_expired",    "server",   &["watchdog"],                            Codes::OneOf(&[4005])),
    rule("token_revoked",    "server",   &["watchdog", "operator"],                Codes::OneOf(&[4500])),
    rule("draining",         "server",   &["watchdog", "operator"],                Codes::OneOf(&[1001])),
    // Nobody is told by a node that is dead; one that lives on to know says: come back.
    rule("node_lost",        "server",   &["watchdog", "peer_node", "recovery"],   Codes::AtMost(&[4000])),
    rule("resume_expired",   "network",  &["watchdog", "peer_node", "recovery"],   Codes::OneOf(&[])),
    rule("internal_error",   "server",   &["watchdog", "socket"],                  Codes::OneOf(&[1011])),
];

pub fn of(reason: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.reason == reason)
}

/// The end was decided by someone who did not hold the socket: a peer, the operator by way of another node, or the
/// node's own next run. What the device was told meanwhile by the holder need not agree.
pub fn from_afar(detected_by: &str) -> bool {
    matches!(detected_by, "peer_node" | "recovery" | "operator")
}
