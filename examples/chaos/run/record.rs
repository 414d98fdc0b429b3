//! The records of a run: files of JSON lines, each with one writer, and the folder they are in.
//!
//! A line is written whole with one write, so that a killed run leaves whole lines. Times are the machine's real clock
//! in microseconds: no clock fault reaches this process.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde_json::{Value, json};

/// One file of JSON lines. Clones write to the same.
#[derive(Clone)]
pub struct Lines(Arc<Mutex<File>>);

impl Lines {
    /// # Errors
    /// Where the file can not be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(File::create(path).with_context(|| path.display().to_string())?))))
    }

    /// Writes what happened now.
    ///
    /// # Errors
    /// Where the disk takes no more.
    pub fn write(&self, mut line: Value) -> std::io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
        line["at"] = json!(now());
        file.write_all(format!("{line}\n").as_bytes())
    }

    /// Writes a line as it is.
    ///
    /// # Errors
    /// Where the disk takes no more.
    pub fn write_bare(&self, line: &Value) -> std::io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
        file.write_all(format!("{line}\n").as_bytes())
    }
}

/// Microseconds since 1970 by the machine's clock.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Takes a folder of records for one run, until the file is closed; `None` where another has it.
///
/// # Errors
/// Where the file can not be made.
pub fn lock(out: &Path) -> anyhow::Result<Option<File>> {
    use rustix::fs::{FlockOperation, flock};

    let path = out.join("lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// What a run's folder says about the run as a whole; written anew whenever something becomes known.
pub struct About {
    path: PathBuf,
    facts: Mutex<Value>,
}

impl About {
    /// Makes the folder, empty but for what its parts will be in, with these facts.
    ///
    /// # Errors
    /// Where the folder can not be made.
    pub fn begin(out: &Path, facts: Value) -> anyhow::Result<Self> {
        // Records of an earlier run would be taken for this one's.
        for name in ["devices", "subscribers", "nodes"] {
            let folder = out.join(name);
            if folder.exists() {
                fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
            }
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        for name in ["faults", "operator", "log", "stream", "live"] {
            let _ = fs::remove_file(out.join(name).with_extension("jsonl"));
        }
        let about = Self { path: out.join("run.json"), facts: Mutex::new(facts) };
        about.write()?;
        Ok(about)
    }

    /// Notes that this was now.
    ///
    /// # Errors
    /// Where the disk takes no more.
    pub fn reached(&self, moment: &str) -> anyhow::Result<()> {
        self.know(moment, json!(now()))
    }

    /// Notes something more.
    ///
    /// # Errors
    /// Where the disk takes no more.
    pub fn know(&self, what: &str, value: Value) -> anyhow::Result<()> {
        self.facts.lock().unwrap_or_else(|broken| broken.into_inner())[what] = value;
        self.write()
    }

    fn write(&self) -> anyhow::Result<()> {
        let facts = self.facts.lock().unwrap_or_else(|broken| broken.into_inner());
        fs::write(&self.path, format!("{facts:#}\n")).with_context(|| self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_runs_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = lock(folder.path()).expect("it can be locked");
        assert!(first.is_some());
        assert!(lock(folder.path()).expect("it can be tried").is_none(), "two runs have one folder");
        drop(first);
        assert!(lock(folder.path()).expect("it can be locked").is_some());
    }
}
