//! Holds thousands of devices against a running lastpong and watches what that costs it.
//!
//! Each device is a bare socket and a small task: it answers pings and does nothing else, with no buffer of its own
//! while nothing is unfinished. Meanwhile the server's memory and processor time are read from `/proc`, and what it
//! counted from `/metrics`. A session that ends meanwhile is a false end: no device here ever leaves.
//! `scripts/soak` starts a server with the right settings and runs this against it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use futures_util::{StreamExt, TryStreamExt};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Holds devices against a running lastpong and reports what they cost it.
#[derive(Parser)]
struct Options {
    /// Where it listens.
    addr: SocketAddr,
    /// Its process.
    #[arg(long)]
    pid: i32,
    /// The key of device tokens; from LASTPONG_TOKEN_SECRET, as the server has it.
    #[arg(skip)]
    secret: String,
    /// The token of operators, for /metrics; from LASTPONG_ADMIN_TOKEN.
    #[arg(skip)]
    admin: String,
    /// How many devices.
    #[arg(long, default_value_t = 15_000)]
    devices: usize,
    /// How many sessions come and go before, so that the server's bounded caches are full when memory is compared.
    #[arg(long, default_value_t = 10_000)]
    warm: usize,
    /// How many are connected first, for the slope of memory over sessions.
    #[arg(long, default_value_t = 2_000)]
    base: usize,
    /// How long all are held.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Seconds between samples.
    #[arg(long, default_value_t = 5)]
    every: u64,
    /// Stop the server for so many seconds in the middle.
    #[arg(long, default_value_t = 0)]
    sigstop: u64,
}

/// What happened on the devices' side.
#[derive(Default)]
struct Seen {
    welcomed: AtomicU64,
    pongs: AtomicU64,
    refused: AtomicU64,
    /// Of sessions that ended, with the first few reasons.
    ended: AtomicU64,
    how: Mutex<Vec<String>>,
}

/// What the server is at one moment.
#[derive(Clone, Copy, Default)]
struct Sample {
    at: Duration,
    rss: u64,
    pss: u64,
    user: f64,
    system: f64,
    pongs: f64,
    ends: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    options.secret = std::env::var("LASTPONG_TOKEN_SECRET").context("LASTPONG_TOKEN_SECRET")?;
    options.admin = std::env::var("LASTPONG_ADMIN_TOKEN").context("LASTPONG_ADMIN_TOKEN")?;
    ensure!(options.base < options.devices, "--base must be under --devices");
    let seen = Arc::new(Seen::default());
    let began = Instant::now();
    println!(
        "{:>8} {:>9} {:>9} {:>9} {:>8} {:>8} {:>11} {:>5}",
        "s", "sessions", "RSS MiB", "PSS MiB", "user s", "sys s", "pongs", "ends"
    );

    warm(&options).await?;
    connect(&options, &seen, 0..options.base).await?;
    let base = settled(&options, began, &seen).await?;
    connect(&options, &seen, options.base..options.devices).await?;
    let full = settled(&options, began, &seen).await?;

    let held = Instant::now();
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let mut stop_at = (options.sigstop > 0).then(|| length / 2);
    let mut samples = vec![full];
    while held.elapsed() < length {
        tokio::time::sleep(Duration::from_secs(options.every)).await;
        if stop_at.is_some_and(|at| held.elapsed() >= at) {
            stop_at = None;
            stall(&options).await?;
        }
        samples.push(sample(&options, began, &seen)?);
    }
    report(&options, &seen, base, &samples)
}

/// Opens and drops sessions until all of them have ended.
async fn warm(options: &Options) -> anyhow::Result<()> {
    let comers = futures_util::stream::iter(0..options.warm).map(|n| async move {
        let mut stream = handshake(options.addr, &token(&options.secret, n)?).await?;
        // The first byte of the welcome: it is on the record.
        stream.read_u8().await?;
        anyhow::Ok(())
    });
    comers.buffer_unordered(64).try_collect::<Vec<()>>().await?;
    while count(&metrics(options)?, "lastpong_disconnects_total") < options.warm as f64 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// SIGSTOP, the time asked for, SIGCONT.
async fn stall(options: &Options) -> anyhow::Result<()> {
    let pid = Pid::from_raw(options.pid).context("--pid is a process")?;
    println!("stopped for {} s", options.sigstop);
    kill_process(pid, Signal::STOP).context("SIGSTOP")?;
    tokio::time::sleep(Duration::from_secs(options.sigstop)).await;
    kill_process(pid, Signal::CONT).context("SIGCONT")?;
    Ok(())
}

async fn connect(options: &Options, seen: &Arc<Seen>, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
    let gate = Arc::new(Semaphore::new(64));
    let wanted = numbers.end as u64;
    for n in numbers {
        let permit = gate.clone().acquire_owned().await?;
        let (addr, token, seen) = (options.addr, token(&options.secret, n)?, seen.clone());
        tokio::spawn(async move {
            let stream = match handshake(addr, &token).await {
                Ok(stream) => stream,
                Err(e) => {
                    seen.refused.fetch_add(1, Ordering::Relaxed);
                    note(&seen, format!("device {n} was not let in: {e:#}"));
                    return;
                }
            };
            drop((token, permit));
            let how = live(stream, &seen).await;
            seen.ended.fetch_add(1, Ordering::Relaxed);
            note(&seen, format!("device {n} ended: {how}"));
        });
    }
    while seen.welcomed.load(Ordering::Relaxed) < wanted {
        if seen.refused.load(Ordering::Relaxed) > 0 {
            bail!("{}", seen.how.lock().expect("nobody panicked").join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn note(seen: &Seen, how: String) {
    let mut notes = seen.how.lock().expect("nobody panicked");
    if notes.len() < 20 {
        notes.push(how);
    }
}

fn token(secret: &str, n: usize) -> anyhow::Result<String> {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 7 * 24 * 3600;
    let claims = serde_json::json!({"sub": format!("soak-{n}"), "exp": exp});
    Ok(jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )?)
}

async fn handshake(addr: SocketAddr, token: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).await?;
    let ask = format!(
        "GET /ws HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await?;
    // Byte by byte, so that nothing of the first frame is taken; it happens once a device.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    ensure!(head.starts_with("HTTP/1.1 101"), "{}", head.lines().next().unwrap_or_default());
    Ok(stream)
}

/// Answers pings until the end, and says how that came.
async fn live(stream: TcpStream, seen: &Seen) -> String {
    let mut rest: Vec<u8> = Vec::new();
    loop {
        if let Err(e) = stream.readable().await {
            return e.to_string();
        }
        let mut scratch = [0; 2048];
        let read = match stream.try_read(&mut scratch) {
            Ok(0) => return "end of stream".into(),
            Ok(n) => &scratch[..n],
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(e) => return e.to_string(),
        };
        rest.extend_from_slice(read);
        let mut at = 0;
        while let Some((opcode, payload, length)) = frame(&rest[at..]) {
            match opcode {
                0x9 => {
                    let mut pong = vec![0x8A, 0x80 | payload.len() as u8, 0, 0, 0, 0];
                    pong.extend_from_slice(payload);
                    // A pong is a few bytes in an empty socket: it goes at once or the connection is broken.
                    match stream.try_write(&pong) {
                        Ok(n) if n == pong.len() => seen.pongs.fetch_add(1, Ordering::Relaxed),
                        other => return format!("a pong was not taken: {other:?}"),
                    };
                }
                0x8 => {
                    return format!(
                        "closed with {:?}",
                        payload.first_chunk().map(|c| u16::from_be_bytes(*c))
                    );
                }
                0x1 => _ = seen.welcomed.fetch_add(1, Ordering::Relaxed),
                _ => {}
            }
            at += length;
        }
        rest.drain(..at);
        if rest.is_empty() {
            rest = Vec::new();
        }
    }
}

/// Opcode, payload and whole length of the first frame; a server's frames here are under 64 KiB.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (length, head) = match second {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        short => (usize::from(short), 2),
    };
    Some((first & 0x0f, bytes.get(head..head + length)?, head + length))
}

/// A sample once the storm of handshakes is over.
async fn settled(options: &Options, began: Instant, seen: &Seen) -> anyhow::Result<Sample> {
    tokio::time::sleep(Duration::from_secs(10)).await;
    sample(options, began, seen)
}

fn sample(options: &Options, began: Instant, seen: &Seen) -> anyhow::Result<Sample> {
    let proc = |file: &str| {
        let path = format!("/proc/{}/{file}", options.pid);
        std::fs::read_to_string(&path).with_context(|| format!("reading {path}: is the server gone?"))
    };
    let rollup = proc("smaps_rollup")?;
    let kib = |name: &str| {
        let line = rollup.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let stat = proc("stat")?;
    // The name in brackets may hold spaces; the fields that follow it do not. A tick is 10 ms on every Linux.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or(vec![], |(_, f)| f.split(' ').collect());
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0) / 100.0;
    let metrics = metrics(options)?;
    let sample = Sample {
        at: began.elapsed(),
        rss: kib("Rss:"),
        pss: kib("Pss:"),
        user: ticks(11),
        system: ticks(12),
        pongs: count(&metrics, "lastpong_ping_rtt_seconds_count"),
        ends: count(&metrics, "lastpong_disconnects_total") - options.warm as f64,
    };
    println!(
        "{:>8.0} {:>9} {:>9.1} {:>9.1} {:>8.1} {:>8.1} {:>11} {:>5}",
        sample.at.as_secs_f64(),
        seen.welcomed.load(Ordering::Relaxed) - seen.ended.load(Ordering::Relaxed),
        mib(sample.rss),
        mib(sample.pss),
        sample.user,
        sample.system,
        sample.pongs,
        sample.ends,
    );
    Ok(sample)
}

fn metrics(options: &Options) -> anyhow::Result<String> {
    let mut stream = std::net::TcpStream::connect(options.addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (addr, admin) = (options.addr, &options.admin);
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {addr}\r\nAuthorization: Bearer {admin}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200"), "/metrics: {status}");
    Ok(answer)
}

/// A metric, over all its labels.
fn count(metrics: &str, name: &str) -> f64 {
    let of = |l: &&str| l.starts_with(name) && l[name.len()..].starts_with(['{', ' ']);
    metrics.lines().filter(of).filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn report(options: &Options, seen: &Seen, base: Sample, samples: &[Sample]) -> anyhow::Result<()> {
    let (full, last) = (samples[0], samples[samples.len() - 1]);
    let after_two = samples.iter().find(|s| s.at >= full.at + Duration::from_secs(120)).unwrap_or(&full);
    let slope = (full.pss as f64 - base.pss as f64) / (options.devices - options.base) as f64;
    let millions = (last.pongs - full.pongs) / 1e6;
    let (user, system) = ((last.user - full.user) / millions, (last.system - full.system) / millions);
    let growth = (last.pss as f64 / after_two.pss as f64 - 1.0) * 100.0;
    let ended = seen.ended.load(Ordering::Relaxed);
    println!();
    println!(
        "devices               {}, pongs {:.2} million in {:.0} s",
        options.devices,
        millions,
        (last.at - full.at).as_secs_f64()
    );
    println!("false ends            {} by the server's count, {ended} by the devices'", last.ends);
    println!("bytes per session     {slope:.0} (PSS, {} to {} sessions)", options.base, options.devices);
    println!(
        "memory (PSS)          {:.1} MiB at minute 2, {:.1} MiB at the end ({growth:+.1} %)",
        mib(after_two.pss),
        mib(last.pss)
    );
    println!("CPU s per 1M pongs    {:.2} (user {user:.2}, system {system:.2})", user + system);
    for how in seen.how.lock().expect("nobody panicked").iter() {
        println!("{how}");
    }
    ensure!(last.ends == 0.0 && ended == 0, "sessions ended that should not have");
    ensure!(growth < 5.0, "memory grew by {growth:.1} % after minute 2");
    Ok(())
}
