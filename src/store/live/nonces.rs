//! Which tokens were used, for all nodes on one Redis: `lastpong:nonce:{jti}`, until the token's end.
//!
//! Apart from live state, for it is no projection: what is lost here is known nowhere else.

use std::time::Duration;

use redis::{Cmd, cmd};

use super::LiveError;
use super::link::RedisLink;

/// Claims a token. False where it was claimed before.
///
/// # Errors
/// Nobody knows whether it is claimed.
pub async fn claim(link: &RedisLink, jti: &str, kept_for: Duration) -> Result<bool, LiveError> {
    let set: Option<String> = link.ask("claim", claimed(jti, kept_for)).await?;
    Ok(set.is_some())
}

/// Has these be known as claimed.
///
/// # Errors
/// Some may not be: they may be told again.
pub async fn tell<'a>(
    link: &RedisLink,
    claims: impl Iterator<Item = (&'a str, Duration)>,
) -> Result<(), LiveError> {
    let commands = claims.map(|(jti, kept_for)| claimed(jti, kept_for)).collect();
    link.ask_all::<Option<String>>("claim", commands).await.map(|_| ())
}

fn claimed(jti: &str, kept_for: Duration) -> Cmd {
    let mut set = cmd("SET");
    // The longest time that Redis takes is counted from 1970, in milliseconds.
    let millis = u64::try_from(kept_for.as_millis()).unwrap_or(u64::MAX).min(1 << 60);
    set.arg(format!("lastpong:nonce:{jti}")).arg("").arg("NX").arg("PX").arg(millis);
    set
}
