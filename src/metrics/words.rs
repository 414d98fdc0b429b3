//! Label values that are known beforehand: each exists from the start at 0.

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($variant,)* }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }
    };
}

words! {
    /// What became of a request for a session.
    Handshake {
        Admitted = "admitted",
        Malformed = "malformed",
        Unauthorized = "unauthorized",
        Forbidden = "forbidden",
        Banned = "banned",
        TokenUsed = "token_used",
        Limited = "limited",
        Draining = "draining",
        Overloaded = "overloaded",
        // The device left before its welcome.
        Abandoned = "abandoned",
    }
}

words! {
    /// What became of a TLS handshake.
    TlsHandshake {
        Done = "done",
        Failed = "failed",
        TimedOut = "timed_out",
        // It made room for others.
        Refused = "refused",
    }
}

words! {
    /// A limit that somebody reached.
    Limit {
        Sessions = "sessions",
        SessionsPerIp = "sessions_per_ip",
        Handshakes = "handshakes",
        HandshakesPerIp = "handshakes_per_ip",
        AddressSlowed = "address_slowed",
        AddressHeldOff = "address_held_off",
        Connections = "connections",
        ConnectionsPerIp = "connections_per_ip",
        HeaderBytes = "header_bytes",
        HeaderTime = "header_time",
        Meta = "meta",
        FramesPerSec = "frames_per_sec",
        BytesPerSec = "bytes_per_sec",
        MessageBytes = "message_bytes",
        MessageTime = "message_time",
        Output = "output",
        // The output of all devices together.
        OutputTotal = "output_total",
    }
}
