//! Where settings come from: which variables are lastpong's, and what the environment and `.env` say of them.
//!
//! Variables that are not lastpong's are not looked at, whatever is in them. The file is only read, never put
//! into the process's environment, and only in the working folder, not in those above it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::{ConfigError, Setting, Source, TABLE};

const PREFIX: &str = "LASTPONG_";

/// lastpong's variables by their names.
pub(crate) type Given = BTreeMap<String, (String, Source)>;

/// What the environment says, and `.env` where that says nothing.
pub(super) fn given() -> Result<Given, ConfigError> {
    let mut given = from_dot_env(Path::new(".env"))?;
    for (name, value) in std::env::vars_os() {
        if let Some((name, value)) = of_ours(name, value)? {
            given.insert(name, (value, Source::Environment));
        }
    }
    Ok(given)
}

/// # Errors
/// The first variable that claims to be lastpong's and is none.
pub(super) fn refuse_unknown(given: &Given) -> Result<(), ConfigError> {
    match given.iter().find(|(name, _)| is_ours(name) && find(name).is_none()) {
        Some((name, (value, _))) => Err(unknown(name, value)),
        None => Ok(()),
    }
}

/// What `.env` gives, where there is one.
pub(super) fn from_dot_env(path: &Path) -> Result<Given, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Given::new()),
        Err(e) => return Err(ConfigError::DotEnv(format!("cannot be read: {e}"))),
    };
    of_dot_env(&text)
}

/// What the text of a `.env` gives.
pub(crate) fn of_dot_env(text: &str) -> Result<Given, ConfigError> {
    let mut given = Given::new();
    for item in dotenvy::Iter::new(io::Cursor::new(text)) {
        match item {
            Ok((name, value)) if is_ours(&name) || find(&name).is_some() => {
                given.insert(name, (value, Source::DotEnv));
            }
            Ok(_) => {}
            // The error's own text would show the line, which may hold a secret.
            Err(dotenvy::Error::LineParse(line, _)) => {
                let number = text.lines().position(|l| l.trim() == line.trim()).map_or(0, |n| n + 1);
                return Err(ConfigError::DotEnv(format!("line {number} is not NAME=value")));
            }
            Err(_) => return Err(ConfigError::DotEnv("cannot be read: not text of lines NAME=value".into())),
        }
    }
    Ok(given)
}

/// A variable that is lastpong's, as text.
pub(super) fn of_ours(name: OsString, value: OsString) -> Result<Option<(String, String)>, ConfigError> {
    let name = name.to_string_lossy().into_owned();
    if !is_ours(&name) && find(&name).is_none() {
        return Ok(None);
    }
    match value.into_string() {
        Ok(value) => Ok(Some((name, value))),
        Err(_) => {
            Err(ConfigError::BadValue { name, shown: "(not UTF-8)".into(), allowed: "text in UTF-8".into() })
        }
    }
}

fn find(name: &str) -> Option<&'static Setting> {
    TABLE.iter().find(|s| s.name == name)
}

/// Whether a variable claims to be lastpong's: by its prefix, however that is written.
fn is_ours(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|p| p.eq_ignore_ascii_case(PREFIX))
}

fn unknown(name: &str, value: &str) -> ConfigError {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("LASTPONG_WEBHOOK") {
        return ConfigError::Webhook { name: name.into() };
    }
    // Whoever wrote LASTPONG_REDIS_URL meant REDIS_URL: the prefix is no difference.
    let bare = |n: &str| n.strip_prefix(PREFIX).unwrap_or(n).to_owned();
    let likeness = |s: &Setting| strsim::sorensen_dice(&bare(&upper), &bare(s.name));
    let nearest = TABLE.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    // What is near to a secret may be one, mistyped.
    let secret = ["SECRET", "TOKEN", "PASS", "KEY"].iter().any(|word| upper.contains(word));
    let shown = match nearest {
        Some(setting) if !secret => setting.kind.shown(value),
        _ => "***".into(),
    };
    let cut = |text: &str| text.chars().take(80).collect::<String>();
    // A name, too, may have line ends in it.
    let name = cut(name).escape_debug().to_string();
    ConfigError::Unknown { name, shown: cut(&shown), nearest: nearest.map_or("", |s| s.name) }
}
