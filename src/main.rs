//! The command line: what was asked, and what is answered on stdout.
//!
//! Exit codes: 0 done, 1 it failed while running, 2 it was asked wrongly or the settings are wrong. Every failure
//! is one line on stderr. Nothing is decided here that the library decides.

#![forbid(unsafe_code)]

mod logging;
mod users;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tikv_jemallocator::Jemalloc;

use lastpong::config::{self, Database, Settings, units};
use lastpong::ids::{DeviceId, DeviceType};
use lastpong::log_filter::LogFilter;
use lastpong::secret::make_private_dir;
use lastpong::store::Store;
use lastpong::swarm::options::{HELP as SWARM_HELP, SwarmOptions};
use lastpong::swarm::{self, SwarmError};
use lastpong::token::DeviceTokens;
use lastpong::watch::options::{HELP as WATCH_HELP, WatchOptions};

/// What is held for each connection is a few blocks, some of them aligned to 128 bytes: this wastes least of all on those.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// lastpong knows the moment a device is gone, why, and tells everyone who needs to know.
#[derive(Parser)]
#[command(name = "lastpong", version, after_help = SETTINGS_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

const SETTINGS_HELP: &str = "\
Examples:
  lastpong                          run it (the same as: lastpong serve)
  lastpong token sensor-1           a token with which the device sensor-1 may connect
  LASTPONG_BIND=127.0.0.1:9000 lastpong
  lastpong watch                    who comes, who goes and why, as it happens
  lastpong check-config             every setting as it comes out

Settings are environment variables, or lines of the file .env in the working folder:
  LASTPONG_BIND=127.0.0.1:8080      where it listens; other than loopback needs both secrets to be set
  LASTPONG_DATA_DIR=./lastpong-data database, and secrets that were made at first start
  LASTPONG_PING_INTERVAL=25s        from one ping to the next
  LASTPONG_PONG_TIMEOUT=10s         how long a pong may take
  LASTPONG_MAX_MISSED_PONGS=2       so many missed in a row end a session
  LASTPONG_TOKEN_SECRET             key of device tokens, at least 32 bytes
  LASTPONG_ADMIN_TOKEN              what operators and subscribers show
  RUST_LOG=info                     log levels
`lastpong check-config --example` explains all of them.";

#[derive(Subcommand)]
enum Command {
    /// Run: hold devices, record their sessions, tell subscribers (the default)
    #[command(after_help = SERVE_HELP)]
    Serve,
    /// Print a token with which a device may connect
    #[command(after_help = TOKEN_HELP)]
    Token {
        /// The device: 1-128 of [A-Za-z0-9._:@-]
        device: DeviceId,
        /// How long it is good for: 1s to 3650d, as 30m, 12h or 30d
        #[arg(long, default_value = "30d", value_parser = ttl)]
        ttl: Duration,
        /// The kind of device, that subscribers can filter by
        #[arg(long)]
        device_type: Option<DeviceType>,
    },
    /// Check the settings and print each as it comes out, with where it came from
    #[command(after_help = CHECK_HELP)]
    CheckConfig {
        /// Print an explained .env file of all settings with their defaults instead
        #[arg(long)]
        example: bool,
    },
    /// Bring the database up to this version and list what was applied; `serve` does the same at its start
    #[command(after_help = MIGRATE_HELP)]
    Migrate,
    /// Who may log in: to the pages with a name and a password, and to the rest with the token that these get
    #[command(after_help = users::HELP)]
    User {
        #[command(subcommand)]
        what: users::UserCommand,
    },
    /// Simulated devices: load, faults, and a report of what they saw
    #[command(after_help = SWARM_HELP)]
    Swarm(Box<SwarmOptions>),
    /// Follow the events of an installation: who comes, who goes and why
    #[command(after_help = WATCH_HELP)]
    Watch(Box<WatchOptions>),
}

const SERVE_HELP: &str = "\
Examples:
  lastpong serve
  LASTPONG_PING_INTERVAL=5s LASTPONG_PONG_TIMEOUT=2s lastpong serve
  RUST_LOG=debug LASTPONG_LOG_FORMAT=json lastpong serve

SIGTERM or SIGINT ends every session as `draining`, spread over LASTPONG_DRAIN_SPREAD; a second one stops at once.
All settings: lastpong check-config";

const TOKEN_HELP: &str = "\
Examples:
  lastpong token sensor-1
  lastpong token sensor-1 --ttl 12h --device-type thermometer

The key is LASTPONG_TOKEN_SECRET, or else token.secret in LASTPONG_DATA_DIR, which is made where it is missing.";

const CHECK_HELP: &str = "\
Examples:
  lastpong check-config
  lastpong check-config --example > .env.example

Exits with 2 and one line on stderr when a setting is wrong.";

const MIGRATE_HELP: &str = "\
Examples:
  lastpong migrate
  DATABASE_URL=sqlite:/var/lib/lastpong/lastpong.db lastpong migrate
  DATABASE_URL=postgres://lastpong@db.example/lastpong lastpong migrate";

const MAX_TTL: Duration = Duration::from_secs(3_650 * 86_400);

fn ttl(text: &str) -> Result<Duration, String> {
    units::parse_duration(text)
        .filter(|d| (Duration::from_secs(1)..=MAX_TTL).contains(d))
        .ok_or_else(|| "allowed is a duration of 1s to 3650d, as 30m, 12h or 30d".to_owned())
}

fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or(Command::Serve);
    if let Command::CheckConfig { example: true } = command {
        return finish(print(&config::env_example()));
    }
    let settings = match Settings::load() {
        Ok(settings) => settings,
        Err(e) => {
            report(&e);
            return ExitCode::from(2);
        }
    };
    let log_filter = logging::init(&settings);
    finish(match command {
        Command::Serve => serve(settings, log_filter),
        Command::Token { device, ttl, device_type } => token(&settings, &device, ttl, device_type.as_ref()),
        Command::CheckConfig { .. } => print(&check_config(&settings)),
        Command::Migrate => migrate(&settings),
        Command::User { what } => users::run(&what, &settings),
        Command::Swarm(options) => return run_swarm(&options, &settings),
        Command::Watch(options) => return run_watch(&options, &settings),
    })
}

/// Fails also where no device could be welcomed: whoever waits for a server in a script then need not read the report.
fn run_swarm(options: &SwarmOptions, settings: &Settings) -> ExitCode {
    let report = match swarm::run(options, settings) {
        Ok(Some(report)) => report,
        Ok(None) => return ExitCode::SUCCESS,
        Err(e) => {
            report(&e);
            return if matches!(e, SwarmError::Options(_)) { ExitCode::from(2) } else { ExitCode::FAILURE };
        }
    };
    let text = if options.json { format!("{}\n", report.json()) } else { report.to_string() };
    match print(&text) {
        Ok(()) if !report.any_welcomed() => finish(Err(anyhow::anyhow!("no device was welcomed"))),
        printed => finish(printed),
    }
}

fn run_watch(options: &WatchOptions, settings: &Settings) -> ExitCode {
    let here = format!("{}://{}", settings.scheme(), reachable(settings.bind));
    match lastpong::watch::run(options, settings, &here) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            report(&e);
            if e.is_bad_request() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            report(&format_args!("{e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// One line, whatever is in the error. A stderr that is gone cannot be told so.
fn report(what: &dyn std::fmt::Display) {
    let line = what.to_string().replace('\n', " ");
    let _ = writeln!(io::stderr(), "lastpong: {line}");
}

/// Writes to stdout. A reader that has seen enough, as `head` has, is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(anyhow::Error::new(e).context("stdout")),
        _ => Ok(()),
    }
}

fn serve(settings: Settings, log_filter: Arc<LogFilter>) -> anyhow::Result<()> {
    let hints = first_start(&settings)?;
    let scheme = settings.scheme();
    lastpong::startup::serve(settings, log_filter, |bound| {
        let line = format!("dashboard: {scheme}://{}/\n{hints}", reachable(bound));
        if let Err(e) = print(&line) {
            log::warn!(error:% = e; "the dashboard's address could not be printed");
        }
    })
}

/// Makes the secrets that are missing, and says so; empty where none was.
fn first_start(settings: &Settings) -> anyhow::Result<String> {
    let (_, key_made) = settings.token_secret()?;
    let (admin, admin_made) = settings.admin_token()?;
    let mut text = String::new();
    let program = std::env::args().next().unwrap_or_else(|| "lastpong".into());
    if key_made || admin_made {
        text += &format!("mint a device token: {program} token sensor-1\n");
    }
    if admin_made {
        let path = settings.admin_token_path();
        text += &format!("admin token: {} (kept in {}, not shown again)\n", admin.expose(), path.display());
        text += &format!("let someone log in: {program} user add NAME --role admin\n");
    }
    Ok(text)
}

/// Where a browser on this machine finds what listens at `bound`.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

fn token(
    settings: &Settings,
    device: &DeviceId,
    ttl: Duration,
    device_type: Option<&DeviceType>,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        settings.token_hs256,
        "LASTPONG_TOKEN_HS256=false: mint with a private key of one of LASTPONG_TOKEN_KEYS"
    );
    let (secret, _) = settings.token_secret()?;
    let tokens = DeviceTokens::new(&secret).for_audience(settings.token_audience.as_deref());
    print(&format!("{}\n", tokens.mint(device, device_type, ttl).token.expose()))
}

/// In the form of a `.env` file, with where each value came from as its comment.
fn check_config(settings: &Settings) -> String {
    let mut text = String::new();
    for e in settings.effective() {
        let kept = match e.setting.name {
            "LASTPONG_TOKEN_SECRET" if e.shown.is_empty() => {
                format!(", in {}", settings.token_secret_path().display())
            }
            "LASTPONG_ADMIN_TOKEN" if e.shown.is_empty() => {
                format!(", in {}", settings.admin_token_path().display())
            }
            _ => String::new(),
        };
        text += &format!("{}={}  # {}{kept}\n", e.setting.name, e.shown.escape_debug(), e.source);
    }
    for name in settings.without_effect() {
        text += &format!("# {name} is without effect in this version\n");
    }
    text
}

fn migrate(settings: &Settings) -> anyhow::Result<()> {
    let (name, applied) = match settings.database() {
        Database::Sqlite(path) => {
            if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
                make_private_dir(dir)?;
            }
            (path.display().to_string(), Store::migrate_sqlite(&path)?)
        }
        Database::Postgres(url) => ("of DATABASE_URL".to_owned(), Store::migrate_postgres(&url)?),
    };
    let mut text = format!("database {name}\n");
    for name in &applied {
        text += &format!("applied {name}\n");
    }
    if applied.is_empty() {
        text += "nothing to apply, it is of this version\n";
    }
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_time_to_live_is_bounded() {
        assert_eq!(ttl("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for bad in ["0s", "999ms", "3651d", "30", "x", "-1s"] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_of_all_interfaces_is_shown_as_one_that_can_be_opened() {
        for (bound, shown) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("192.0.2.1:80", "192.0.2.1:80")]
        {
            assert_eq!(reachable(bound.parse().unwrap()), shown.parse().unwrap());
        }
    }
}
