//! What is told of TLS: its handshakes, and the certificate.

use prometheus::{IntCounterVec, IntGauge, Registry};

use super::{TlsHandshake, counters, gauge};

/// The numbers of TLS.
pub struct TlsMetrics {
    pub handshakes: IntCounterVec,
    /// `loaded` or `failed`.
    pub reloads: IntCounterVec,
    /// Unix seconds; 0 without TLS.
    pub good_until: IntGauge,
}

impl TlsMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let metrics = Self {
            handshakes: counters(
                r,
                "lastpong_tls_handshakes_total",
                "TLS handshakes, by outcome.",
                &["outcome"],
            ),
            reloads: counters(
                r,
                "lastpong_tls_reloads_total",
                "Changes of the certificate files that were looked at, by outcome.",
                &["outcome"],
            ),
            good_until: gauge(
                r,
                "lastpong_tls_certificate_expires_seconds",
                "Unix time up to which the server's certificate is good; 0 without TLS.",
            ),
        };
        TlsHandshake::ALL
            .iter()
            .for_each(|outcome| _ = metrics.handshakes.with_label_values(&[outcome.as_str()]));
        ["loaded", "failed"].iter().for_each(|outcome| _ = metrics.reloads.with_label_values(&[outcome]));
        metrics
    }
}
