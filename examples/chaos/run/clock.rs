//! A wall clock of a part's own, that can jump, by libfaketime. Its monotonic clock is left alone, as a real jump does.
//!
//! A process reads the time's offset anew each second, so that those of Postgres may differ for a second. More often it
//! must not: libfaketime opens a file to read it, also where a program looks at the time within a signal handler, as
//! Postgres does; there that may corrupt the heap of a process that was just allocating. One that is at work has read
//! the offset within the second, and one that waits is not allocating.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

/// Where libfaketime is, if it is installed. With threads it is the one that takes a lock.
pub fn library(threads: bool) -> Option<PathBuf> {
    let name = if threads { "libfaketimeMT.so.1" } else { "libfaketime.so.1" };
    let places = fs::read_dir("/usr/lib").ok()?;
    places
        .filter_map(|place| Some(place.ok()?.path().join("faketime").join(name)))
        .find(|path| path.is_file())
}

pub struct Clock {
    offset: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// One that goes right, kept in this folder.
    ///
    /// # Errors
    /// Where libfaketime is not installed, or the folder can not be written.
    pub fn new(folder: &Path, threads: bool) -> anyhow::Result<Self> {
        let library = library(threads).context("libfaketime is not in /usr/lib/*/faketime")?;
        let clock = Self { offset: folder.join("clock"), library };
        clock.set(0)?;
        Ok(clock)
    }

    /// Puts a program on this clock.
    pub fn rule(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.offset);
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        command.env("FAKETIME_CACHE_DURATION", "1");
    }

    /// From now on it is so many seconds ahead of the real one.
    ///
    /// # Errors
    /// Where the file can not be written.
    pub fn set(&self, by_s: i64) -> anyhow::Result<()> {
        // Renamed into place: whoever reads it meanwhile reads the whole of the one or of the other.
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{by_s:+}")).and_then(|()| fs::rename(&new, &self.offset))?;
        Ok(())
    }

    /// Notes a process that is on it: libfaketime keeps two files for each, which a killed one leaves behind and the
    /// run's guardian removes.
    ///
    /// # Errors
    /// Where the file can not be written.
    pub fn rules(&self, pid: u32) -> anyhow::Result<()> {
        let path = self.offset.with_file_name("clocked");
        let mut file = fs::File::options().create(true).append(true).open(path)?;
        writeln!(file, "{pid}")?;
        Ok(())
    }
}
