//! Values that nobody may see by accident, and their files.
//!
//! - A [`Secret`] prints as `***` and cannot be written by serde; only [`Secret::expose`] gives it away.
//! - A secret's file belongs to its owner alone: one that others could read is refused, for it may be known.
//! - A file is made whole or not at all, and two who make the same one at once both get the one that stayed.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

/// The longest secret that is read from a file, in bytes.
const MAX_FILE_BYTES: u64 = 4_096;

/// A key or token.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into().into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `given` is the secret; takes the same time wherever they differ.
    pub fn matches(&self, given: &[u8]) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_bytes().ct_eq(given).into()
    }

    /// The secret in the file at `path`.
    ///
    /// # Errors
    /// As [`Secret::load_or_create`], and where there is no file.
    pub fn load(path: &Path, min_bytes: usize) -> io::Result<Secret> {
        load(path, min_bytes)
    }

    /// The secret in the file at `path`, or a new one of 32 random bytes in hex where there is no file; and
    /// whether it was made.
    ///
    /// # Errors
    /// A file that cannot be read or made, is of no use (shorter than `min_bytes`, not text), or can be read by
    /// others than its owner.
    pub fn load_or_create(path: &Path, min_bytes: usize) -> io::Result<(Secret, bool)> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        match load(path, min_bytes) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            found => return found.map(|secret| (secret, false)).map_err(named),
        }
        let made = create(path).map_err(named)?;
        // Read back, for another process may have been first.
        load(path, min_bytes).map(|secret| (secret, made)).map_err(named)
    }
}

/// Whether there is something in it that looks like a JWT, which has no business where it may be shown, kept or logged.
pub fn has_token(text: &str) -> bool {
    // `{"` in base64, with which the header of nearly each begins, and what others put between the two.
    const COMPACT: &str = "eyJ";
    const SPACED: [&str; 4] = ["eyA", "ewo", "ew0", "ewk"];
    /// `{"alg":"..."}` is longer.
    const SHORTEST: usize = 16;
    let foreign = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_');
    let header = |part: &str| {
        let from =
            part.find(COMPACT).or_else(|| SPACED.iter().any(|begins| part.starts_with(begins)).then_some(0));
        from.is_some_and(|from| part.len() - from >= SHORTEST)
    };
    text.split(foreign).any(|run| {
        let mut parts = run.split('.');
        // Two more have to follow.
        parts.any(header) && parts.nth(1).is_some()
    })
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Makes the folder at `path`, for its owner alone, with those above it; one that is there is left as it is.
///
/// # Errors
/// Where it cannot be made.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

fn load(path: &Path, min_bytes: usize) -> io::Result<Secret> {
    // Looked at before it is opened, because opening a pipe would wait for its other end.
    let about = fs::metadata(path)?;
    let bad = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    if !about.is_file() {
        return bad("not a file, but a secret should be in one".into());
    }
    if about.mode() & 0o077 != 0 {
        return bad(format!(
            "mode {:04o} lets others read it, only its owner may (0600)",
            about.mode() & 0o7777
        ));
    }
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    let secret = text.trim();
    if secret.len() < min_bytes || text.len() as u64 > MAX_FILE_BYTES {
        return bad(format!("{} bytes, but a secret is of {min_bytes} to {MAX_FILE_BYTES}", secret.len()));
    }
    Ok(Secret(secret.into()))
}

/// Writes a new secret under another name and links it to `path`; false where one was there by then.
fn create(path: &Path) -> io::Result<bool> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_private_dir(dir)?;
    let draft = dir.join(format!(".{}.tmp", uuid::Uuid::new_v4()));
    let result = write_draft(&draft).and_then(|()| put_in_place(&draft, path));
    // Of no use any more, whether it was linked or not; a leftover would hold nothing but an unused secret.
    let _ = fs::remove_file(&draft);
    let made = result?;
    File::open(dir)?.sync_all()?;
    Ok(made)
}

fn write_draft(draft: &Path) -> io::Result<()> {
    let bytes: [u8; 32] = rand::random();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    writeln!(file, "{hex}")?;
    file.sync_all()
}

/// A link does not replace what is there, as a rename would; so the first of two stays. Where the file system
/// knows no links, renaming has to do.
fn put_in_place(draft: &Path, path: &Path) -> io::Result<bool> {
    match fs::hard_link(draft, path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) if matches!(e.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
            fs::rename(draft, path).map(|()| true)
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_seen_wherever_it_stands() {
        for header in ["eyJhbGciOiJIUzI1NiJ9", "eyAiYWxnIjogIkhTMjU2IiB9", "ewogImFsZyI6ICJIUzI1NiIKfQ"] {
            let token = format!("{header}.eyJzdWIiOiJkIn0.c2lnbmF0dXJl-_");
            for text in ["T", "Bearer T", "/ws?device_type=T&x=y", "/v1/devices/T/ban", "T.T", "meta.T"] {
                assert!(has_token(&text.replace('T', &token)), "{text} {token}");
            }
        }
        let compact = "xeyJhbGciOiJIUzI1NiJ9.e30.s";
        assert!(has_token(compact));
        for text in ["", "eyJ", "eyJ.a.b", "eyJhbGciOiJIUzI1NiJ9.one-dot", "sensor-1.of.room-7", "é.eyJ"] {
            assert!(!has_token(text), "{text}");
        }
        // However long, it is gone through once.
        assert!(!has_token(&"eyJ".repeat(1_000_000)));
        assert!(!has_token(&"eyJ.".repeat(1_000_000)));
    }

    fn written(text: &str, mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.secret");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn it_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/x.secret");
        let (made, new) = Secret::load_or_create(&path, 32).unwrap();
        assert!(new && made.expose().len() == 64 && made.expose().bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        let (again, new) = Secret::load_or_create(&path, 32).unwrap();
        assert!(!new && again.matches(made.expose().as_bytes()));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a draft was left behind");
        let (other, _) = Secret::load_or_create(&dir.path().join("y.secret"), 32).unwrap();
        assert!(!other.matches(made.expose().as_bytes()));
    }

    #[test]
    fn two_who_make_it_at_once_have_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.secret");
        let results: Vec<_> = std::thread::scope(|s| {
            let tries: Vec<_> =
                (0..8).map(|_| s.spawn(|| Secret::load_or_create(&path, 32).unwrap())).collect();
            tries.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|(_, made)| *made).count(), 1);
        assert!(results.iter().all(|(s, _)| s.expose() == results[0].0.expose()));
    }

    #[test]
    fn a_file_of_no_use_is_refused_by_name() {
        let long = "x".repeat(5_000);
        let secret = "0123456789abcdef";
        for (text, mode, why) in [
            ("", 0o600, "0 bytes, but a secret is of 16 to 4096"),
            (" \n", 0o600, "0 bytes"),
            ("short\n", 0o600, "5 bytes"),
            (&*long, 0o600, "but a secret is of"),
            (secret, 0o640, "mode 0640 lets others read it"),
            (secret, 0o604, "mode 0604 lets others read it"),
        ] {
            let (_dir, path) = written(text, mode);
            let e = Secret::load_or_create(&path, 16).unwrap_err().to_string();
            assert!(e.starts_with(&path.display().to_string()) && e.contains(why), "{e}");
        }
        let (_dir, path) = written("0123456789abcdef\n", 0o600);
        assert_eq!(Secret::load_or_create(&path, 16).unwrap().0.expose(), secret);
        let dir = tempfile::tempdir().unwrap();
        assert!(Secret::load_or_create(dir.path(), 16).unwrap_err().to_string().contains("not a file"));
        let under_a_file = path.join("x.secret");
        assert!(Secret::load_or_create(&under_a_file, 16).is_err());
    }

    #[test]
    fn it_does_not_print() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "*** Some(***)");
        assert!(secret.matches(b"hunter2") && !secret.matches(b"hunter3") && !secret.matches(b"hunter"));
    }
}
