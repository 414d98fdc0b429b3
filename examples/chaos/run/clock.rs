//! A wall clock of a part's own, that can jump, by libfaketime. Its monotonic clock is left alone, as a real jump does.
//!
//! A process reads the time's offset anew each second; with `exact`, for the processes of Postgres that must agree with
//! each other, at every look.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

pub struct Clock {
    offset: PathBuf,
    library: PathBuf,
    exact: bool,
}

impl Clock {
    /// One that goes right, kept in this folder.
    ///
    /// # Errors
    /// Where libfaketime is not installed, or the folder can not be written.
    pub fn new(folder: &Path, exact: bool) -> anyhow::Result<Self> {
        // With threads the one that takes a lock; a server of many processes is better served without.
        let name = if exact { "libfaketime.so.1" } else { "libfaketimeMT.so.1" };
        let places = fs::read_dir("/usr/lib").context("/usr/lib")?;
        let library = places
            .filter_map(|place| Some(place.ok()?.path().join("faketime").join(name)))
            .find(|path| path.is_file())
            .with_context(|| {
                format!("{name} is not in /usr/lib/*/faketime: install faketime, or use --without clock")
            })?;
        let clock = Self { offset: folder.join("clock"), library, exact };
        clock.set(0)?;
        Ok(clock)
    }

    /// Puts a program on this clock.
    pub fn rule(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.offset);
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        match self.exact {
            true => command.env("FAKETIME_NO_CACHE", "1"),
            false => command.env("FAKETIME_CACHE_DURATION", "1"),
        };
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
