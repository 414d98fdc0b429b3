//! Every setting, in one table: its name, field, type, default, bounds and meaning.
//!
//! The table is the only place that says any of these. [`Settings`], the list that `check-config` prints and
//! `.env.example` are made from it. A default of `""` is worked out at start; its text says how.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use super::kind::{self, Kind};
use super::{Effective, units};
use crate::ids::NodeId;
use crate::secret::Secret;

/// One line of the table.
#[derive(Debug)]
pub struct Setting {
    pub group: &'static str,
    /// The environment variable.
    pub name: &'static str,
    /// The field of [`Settings`].
    pub key: &'static str,
    pub default: &'static str,
    pub kind: Kind,
    /// Lines of text, each with the space that a comment begins with.
    pub doc: &'static [&'static str],
    /// Whether this version does what the setting says.
    pub effect: bool,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether a token may open more than one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenReplay {
    Allow,
    /// A token's `jti` opens one session.
    Once,
}

/// Whom a token lets in that may be used once, while nobody can say whether it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplayAway {
    Refuse,
    /// Each node goes by what it knows itself.
    Local,
}

/// Who has to show a client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsClients {
    /// Nobody: a device may show one in place of a token.
    Optional,
    /// Devices, at `/ws`.
    Devices,
    /// Everyone: without one the TLS handshake fails.
    All,
}

/// How a proxy names its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedBy {
    #[default]
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

macro_rules! settings {
    ($([$group:literal] $(
        $(#[doc = $doc:literal])+
        $(#[serde($($serde:tt)+)])?
        $name:literal $field:ident: $type:ty = $default:literal, $kind:expr $(, $effect:ident)?;
    )+)+) => {
        /// What lastpong was told to be, read once at start.
        #[derive(Debug, Clone, Deserialize)]
        pub struct Settings {
            $($($(#[doc = $doc])+ $(#[serde($($serde)+)])? pub $field: $type,)+)+
            #[serde(skip)]
            pub(super) effective: Vec<Effective>,
        }

        /// Every setting, in the order people read them.
        pub static TABLE: &[Setting] = &[$($(Setting {
            group: $group,
            name: $name,
            key: stringify!($field),
            default: $default,
            kind: $kind,
            doc: &[$($doc),+],
            effect: settings!(@effect $($effect)?),
        },)+)+];
    };
    (@effect) => { true };
    (@effect later) => { false };
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const SEC: u64 = 1_000;
const MIN: u64 = 60 * SEC;
const HOUR: u64 = 60 * MIN;
const DAY: u64 = 24 * HOUR;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

settings! {
    ["Where it listens, and what it is called"]
    /// Address and port of everything: devices, subscribers, operators. Only this machine can reach the
    /// default. Any other address needs LASTPONG_ADMIN_TOKEN and LASTPONG_TOKEN_SECRET to be set.
    "LASTPONG_BIND" bind: SocketAddr = "127.0.0.1:8080", Kind::Address;
    /// Folder of the database and of secrets that were made at first start; made where it is missing.
    "LASTPONG_DATA_DIR" data_dir: PathBuf = "./lastpong-data", Kind::Path;
    /// This node's lasting name in events. By default the host name.
    #[serde(default = "host_name")]
    "LASTPONG_NODE_ID" node_id: NodeId = "", Kind::Name;
    /// Threads that hold sessions. By default one for each core.
    #[serde(default = "cores")]
    "LASTPONG_WORKERS" workers: usize = "", Kind::Count(1, 1_024);
    /// Log lines for people, or one JSON object a line.
    "LASTPONG_LOG_FORMAT" log_format: LogFormat = "text", Kind::OneOf(&["text", "json"]);
    /// The most log lines in a second from one place of the program, so that a storm does not fill the disk; a line says
    /// how many were left out. 0 is no limit.
    "LASTPONG_LOG_LINES_PER_SEC" log_lines_per_sec: u32 = "50", Kind::Count(0, 1_000_000);
    /// Log levels, whole and by module.
    "RUST_LOG" rust_log: String = "info", Kind::LogFilter;

    ["Stores"]
    /// The SQL store: a SQLite file of this node alone, or postgres://USER:PASSWORD@HOST:PORT/DATABASE, which many
    /// nodes share. By default the SQLite file lastpong.db in the data folder.
    "DATABASE_URL" database_url: Option<Secret> = "", Kind::Database;
    /// Redis, for live state and for the stream lastpong:events. By default none.
    "REDIS_URL" redis_url: Option<Secret> = "", Kind::Redis;
    /// The fewest of the newest events that the stream in Redis keeps; it drops older ones in lots.
    "LASTPONG_STREAM_MAXLEN" stream_maxlen: u64 = "1000000", Kind::Count(1, 1_000_000_000);
    /// Start although Postgres is away (true): devices are welcomed, and what must be kept waits in journal.db in
    /// the data folder. Or do not start without it (false). SQLite is never away in this sense.
    "LASTPONG_START_DEGRADED" start_degraded: bool = "true", Kind::Flag;
    /// How long a group commit waits for company. By default not at all: while one commit is being written,
    /// the next gathers.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_COMMIT_DELAY" commit_delay: Duration = "0ms", Kind::Duration(ms(0), ms(SEC));
    /// The most starts and ends in one transaction: enough to share an fsync widely, few enough that a storm
    /// does not hold up those who wait for their welcome.
    "LASTPONG_COMMIT_BATCH" commit_batch: usize = "1000", Kind::Count(1, 100_000);
    /// How often live state is written down and compared.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_UPDATE_INTERVAL" update_interval: Duration = "5s", Kind::Duration(ms(100), ms(HOUR));
    /// How long live state outlives its last update: what is left by a node that died is gone by then.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_SESSION_TIMEOUT" session_timeout: Duration = "15m", Kind::Duration(ms(SEC), ms(30 * DAY));
    /// A session that live state shows without activity for so long is looked at again: is it still here, and live
    /// state wrong? It ends no session.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_MAX_INACTIVE" max_inactive: Duration = "10m", Kind::Duration(ms(SEC), ms(30 * DAY));
    /// The fewest rows that one cleaning takes at once; it takes more under load.
    "LASTPONG_CLEANUP_BATCH_SIZE" cleanup_batch_size: usize = "50", Kind::Count(1, 100_000);
    /// How long events are kept for subscribers that come back.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_EVENT_RETENTION" event_retention: Duration = "7d", Kind::Duration(ms(SEC), ms(3_650 * DAY));
    /// How long it is kept what operators did (`/v1/audit`).
    #[serde(deserialize_with = "duration")]
    "LASTPONG_AUDIT_RETENTION" audit_retention: Duration = "90d", Kind::Duration(ms(SEC), ms(3_650 * DAY));
    /// How long a node may be silent before its sessions are another's to end.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_NODE_LEASE" node_lease: Duration = "10s", Kind::Duration(ms(SEC), ms(HOUR));

    ["Heartbeats"]
    /// From one ping to the next.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_PING_INTERVAL" ping_interval: Duration = "25s", Kind::Duration(ms(50), ms(HOUR));
    /// How long a ping's pong may take.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_PONG_TIMEOUT" pong_timeout: Duration = "10s", Kind::Duration(ms(50), ms(10 * MIN));
    /// So many pongs missed in a row end the session.
    "LASTPONG_MAX_MISSED_PONGS" max_missed_pongs: u32 = "2", Kind::Count(1, 100);
    /// Ping a good connection less often (60s) and a bad one more often (15s).
    "LASTPONG_ADAPTIVE_PING" adaptive_ping: bool = "false", Kind::Flag;
    /// Write suspected and recovered as durable events too.
    "LASTPONG_SUSPECT_EVENTS" suspect_events: bool = "false", Kind::Flag, later;

    ["Sessions"]
    /// How long a device that lost its socket may take to come back to its session. Only 0s is supported by
    /// this version.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_RESUME_WINDOW" resume_window: Duration = "0s", Kind::Duration(ms(0), ms(HOUR));
    /// How often one session may be resumed.
    "LASTPONG_MAX_RECONNECTS" max_reconnects: u32 = "3", Kind::Count(0, 1_000_000), later;
    /// Over how long a graceful shutdown spreads its closes, so that devices do not all return at once.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_DRAIN_SPREAD" drain_spread: Duration = "30s", Kind::Duration(ms(0), ms(HOUR));
    /// How long a request's head may take to arrive, and how long a session's start may take to be durable.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_HANDSHAKE_TIMEOUT" handshake_timeout: Duration = "10s", Kind::Duration(ms(100), ms(10 * MIN));
    /// How long a device may take to answer a close frame before its socket is cut.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_CLOSE_TIMEOUT" close_timeout: Duration = "2s", Kind::Duration(ms(50), ms(MIN));

    ["Limits"]
    /// The most sessions of this node. The operating system's limit on open files is often lower.
    "LASTPONG_MAX_SESSIONS" max_sessions: usize = "1000000", Kind::Count(1, 100_000_000);
    /// The most sessions from one address; 0 is no limit, since many devices may share one behind a gateway.
    "LASTPONG_MAX_SESSIONS_PER_IP" max_sessions_per_ip: u32 = "0", Kind::Count(0, 100_000_000);
    /// The most handshakes in a second; 0 is no limit, since what is right depends on the machine. Those whose token is no
    /// good are not counted: nobody without one uses it up.
    "LASTPONG_HANDSHAKES_PER_SEC" handshakes_per_sec: u32 = "0", Kind::Count(0, 1_000_000);
    /// The most handshakes in a second from one address, whatever comes of them; 0 is no limit, for the same reason as with
    /// sessions. An address of IPv6 counts as its /64, here and wherever addresses are counted.
    "LASTPONG_HANDSHAKES_PER_SEC_PER_IP" handshakes_per_sec_per_ip: u32 = "0", Kind::Count(0, 1_000_000);
    /// The most connections at once that are not sessions: requests on their way, and who reads by HTTP. Of those that
    /// have not sent a whole request yet, the one that has waited longest makes room for a new one. One address never has
    /// more than are left for all others (but always a sixty-fourth), and so half of them at most.
    "LASTPONG_MAX_CONNECTIONS" max_connections: usize = "10000", Kind::Count(16, 1_000_000);
    /// The most of those from one address; 0 is no limit but that. LASTPONG_TRUSTED_PROXIES count as whom they name by the
    /// PROXY protocol, and have no such limit themselves.
    "LASTPONG_MAX_CONNECTIONS_PER_IP" max_connections_per_ip: u32 = "0", Kind::Count(0, 1_000_000);
    /// The largest head of a request: its line and its headers.
    #[serde(deserialize_with = "bytes")]
    "LASTPONG_MAX_HEADER_BYTES" max_header_bytes: usize = "32KiB", Kind::Bytes(KIB, 64 * KIB);
    /// The most that a device may say of itself in meta.KEY=VALUE, keys and values together.
    #[serde(deserialize_with = "bytes")]
    "LASTPONG_MAX_META_BYTES" max_meta_bytes: usize = "5KiB", Kind::Bytes(0, 5 * KIB);
    /// The most frames from one device in a second; 0 is no limit. Far over what heartbeats and pongs need,
    /// far under what would burden a worker.
    "LASTPONG_FRAMES_PER_SEC" frames_per_sec: u32 = "100", Kind::Count(0, 1_000_000);
    /// The most bytes from one device in a second; 0 is no limit but what the frames come to. One message of the largest
    /// size may come at once.
    #[serde(deserialize_with = "bytes")]
    "LASTPONG_BYTES_PER_SEC" bytes_per_sec: usize = "0", Kind::Bytes(0, 1024 * MIB);
    /// The largest frame from a device.
    #[serde(deserialize_with = "bytes")]
    "LASTPONG_MAX_FRAME_BYTES" max_frame_bytes: usize = "64KiB", Kind::Bytes(125, 64 * MIB);
    /// The largest message from a device: all its fragments together.
    #[serde(deserialize_with = "bytes")]
    "LASTPONG_MAX_MESSAGE_BYTES" max_message_bytes: usize = "256KiB", Kind::Bytes(125, 64 * MIB);
    /// How long a device may take over one message in fragments. Looked at with each ping.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_MESSAGE_TIMEOUT" message_timeout: Duration = "30s", Kind::Duration(ms(100), ms(HOUR));
    /// The most output that may wait for a device that reads too slowly.
    #[serde(deserialize_with = "bytes")]
    "LASTPONG_MAX_OUTPUT_BYTES" max_output_bytes: usize = "64KiB", Kind::Bytes(4 * KIB, 64 * MIB);
    /// The most output that may wait for all devices together. Beyond it each may have 4KiB waiting, and no more.
    #[serde(deserialize_with = "bytes")]
    "LASTPONG_MAX_OUTPUT_TOTAL" max_output_total: usize = "32MiB", Kind::Bytes(MIB, 65_536 * MIB);
    /// The most streams of events at once.
    "LASTPONG_MAX_SUBSCRIBERS" max_subscribers: usize = "1000", Kind::Count(1, 100_000);

    ["Who may do what"]
    /// Web pages that may connect, as `https://example.com` with commas between; `*` is all of them. When empty,
    /// only pages of the host they connect to. Programs that are not browsers send no origin and are let in.
    #[serde(default, deserialize_with = "origin_list")]
    "LASTPONG_ALLOWED_ORIGINS" allowed_origins: Vec<String> = "", Kind::Origins;
    /// The key of device tokens (HS256), at least 32 bytes. By default made at first start and kept in
    /// token.secret in the data folder.
    "LASTPONG_TOKEN_SECRET" token_secret: Option<Secret> = "", Kind::Secret(32);
    /// Whether a token may open many sessions (allow) or one (once, by its jti).
    "LASTPONG_TOKEN_REPLAY" token_replay: TokenReplay = "allow", Kind::OneOf(&["allow", "once"]);
    /// With once, while Redis is away: refuse every handshake (503), or go by what each node itself remembers (local),
    /// so that a token may open one session at each.
    "LASTPONG_TOKEN_REPLAY_AWAY" token_replay_away: ReplayAway = "refuse", Kind::OneOf(&["refuse", "local"]);
    /// File of the public keys of others who mint tokens: a JWK Set of Ed25519 (EdDSA) and P-256 (ES256) keys, each
    /// with the kid that its tokens name. Read anew when it changes. By default none.
    "LASTPONG_TOKEN_KEYS" token_keys: Option<PathBuf> = "", Kind::Path;
    /// Whether tokens of LASTPONG_TOKEN_SECRET (HS256) are good; false needs LASTPONG_TOKEN_KEYS.
    "LASTPONG_TOKEN_HS256" token_hs256: bool = "true", Kind::Flag;
    /// Whom tokens have to be for, by their aud. By default nobody looks at it.
    "LASTPONG_TOKEN_AUDIENCE" token_audience: Option<String> = "", Kind::Text(256);
    /// What operators and subscribers show, at least 16 characters. By default made at first start and kept
    /// in admin.token in the data folder.
    "LASTPONG_ADMIN_TOKEN" admin_token: Option<Secret> = "", Kind::HeaderSecret(16);
    /// Proxies that are believed when they say for whom they ask: limits, bans, records and logs then go by that address.
    /// They also say whether he speaks TLS, and so whether a login's cookie is for TLS alone. By default none.
    #[serde(default, deserialize_with = "network_list")]
    "LASTPONG_TRUSTED_PROXIES" trusted_proxies: Vec<IpNet> = "", Kind::Networks;
    /// By which headers they say so: X-Forwarded-For and X-Forwarded-Proto, or Forwarded (RFC 7239). The other is
    /// anyone's, and not looked at.
    "LASTPONG_FORWARDED_BY" forwarded_by: ForwardedBy = "x-forwarded-for", Kind::OneOf(&["x-forwarded-for", "forwarded"]);
    /// Whether each connection of theirs begins with a PROXY protocol header, version 2. One without is refused. What
    /// comes from elsewhere has none.
    "LASTPONG_PROXY_PROTOCOL" proxy_protocol: bool = "false", Kind::Flag;
    /// From an address with more bad tokens, malformed handshakes and protocol errors than this in a minute few handshakes
    /// are looked at, and from one with twice as many nothing for a while; 0 is never. By default never: behind a proxy
    /// that LASTPONG_TRUSTED_PROXIES does not list, all devices have one address.
    "LASTPONG_SUSPECT_AFTER" suspect_after: u32 = "0", Kind::Count(0, 1_000_000);
    /// For how long nothing is looked at. Sessions that are there stay.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_SUSPECT_BAN" suspect_ban: Duration = "5m", Kind::Duration(ms(SEC), ms(DAY));
    /// Addresses that this is not done to. By default this machine itself, where a proxy may stand that is not listed;
    /// LASTPONG_TRUSTED_PROXIES are never suspect.
    #[serde(deserialize_with = "network_list")]
    "LASTPONG_SUSPECT_EXEMPT" suspect_exempt: Vec<IpNet> = "127.0.0.0/8,::1", Kind::Networks;
    /// Let anyone read /metrics.
    "LASTPONG_METRICS_PUBLIC" metrics_public: bool = "false", Kind::Flag;
    /// A device that connects so often within the flap window is flapping: one event says so, and the next only after a
    /// whole window in which it was not.
    "LASTPONG_FLAP_COUNT" flap_count: u32 = "15", Kind::Count(2, 100_000);
    /// The flap window.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_FLAP_WINDOW" flap_window: Duration = "1m", Kind::Duration(ms(SEC), ms(DAY));
    /// How long a flapping device is banned; 0s is not at all.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_FLAP_BAN" flap_ban: Duration = "0s", Kind::Duration(ms(0), ms(365 * DAY));

    ["TLS"]
    /// Certificate chain of the listener in PEM, its own first. When set, everything is within TLS (1.2 or 1.3). A change
    /// of the file is taken up without a restart. By default none: then a proxy has to speak TLS.
    "LASTPONG_TLS_CERT" tls_cert: Option<PathBuf> = "", Kind::Path;
    /// The certificate's private key in PEM, without a passphrase, in a file that not everyone may read.
    "LASTPONG_TLS_KEY" tls_key: Option<PathBuf> = "", Kind::Path;
    /// Authorities in PEM whose client certificates are accepted: who shows one with the URI urn:lastpong:device:ID, or
    /// else with the common name ID, is that device. By default none is asked for.
    "LASTPONG_TLS_CLIENT_CA" tls_client_ca: Option<PathBuf> = "", Kind::Path;
    /// Who has to show a client certificate: nobody, since a token will do (optional), devices at /ws (devices), or
    /// whoever connects, also operators and probes (all).
    "LASTPONG_TLS_CLIENTS" tls_clients: TlsClients = "optional", Kind::OneOf(&["optional", "devices", "all"]);
    /// How often the files are looked at for a change; SIGHUP has them looked at now.
    #[serde(deserialize_with = "duration")]
    "LASTPONG_TLS_RELOAD" tls_reload: Duration = "1m", Kind::Duration(ms(100), ms(DAY));
    /// The most TLS handshakes under way at once: a quarter for the first of each address, of the others half at most for
    /// one. One more waits, and whoever has been at it for a second makes room. Each may take as long as
    /// LASTPONG_HANDSHAKE_TIMEOUT, and be held as long again until the head of its first request is there. Each worker
    /// has four of them at least.
    "LASTPONG_MAX_TLS_HANDSHAKES" max_tls_handshakes: usize = "256", Kind::Count(1, 100_000);

    ["Traces"]
    /// Where traces are sent by OTLP (HTTP, protobuf): the address before /v1/traces, as http://127.0.0.1:4318. What
    /// OTEL_EXPORTER_OTLP_HEADERS says is sent along. By default nowhere.
    "OTEL_EXPORTER_OTLP_ENDPOINT" otel_exporter_otlp_endpoint: Option<Secret> = "", Kind::Url(&["http", "https"]);
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    units::parse_duration(&text).ok_or_else(|| serde::de::Error::custom("not a duration"))
}

fn bytes<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    let text = String::deserialize(d)?;
    units::parse_bytes(&text).ok_or_else(|| serde::de::Error::custom("not a size"))
}

fn origin_list<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(kind::origins(&String::deserialize(d)?).map(str::to_owned).collect())
}

fn network_list<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<IpNet>, D::Error> {
    kind::networks(&String::deserialize(d)?).ok_or_else(|| serde::de::Error::custom("not networks"))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// The host name as far as it is a node's name; `lastpong` where nothing of it is.
fn host_name() -> NodeId {
    let host = hostname::get().unwrap_or_default();
    let kept = |c: &char| c.is_ascii_alphanumeric() || "._:@-".contains(*c);
    let name: String = host.to_string_lossy().chars().filter(kept).take(crate::ids::MAX_NAME_BYTES).collect();
    name.parse().unwrap_or_else(|_| "lastpong".parse().expect("a valid name"))
}
