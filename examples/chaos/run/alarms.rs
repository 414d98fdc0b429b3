//! Reads on in what Postgres and Redis write, for words of a process that ended as none should.
//!
//! A line is judged when it is written, by the faults of that moment: its own time would be that of a clock that a
//! fault may have set.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What only one says that crashed, or is about to.
const WORDS: [&str; 7] = [
    "PANIC:",
    "was terminated by signal",
    "Aborted",
    "malloc(): ",
    "corrupted",
    "crashed by signal",
    "Segmentation fault",
];

/// How far each log was read.
#[derive(Default)]
pub struct Alarms(HashMap<PathBuf, u64>);

impl Alarms {
    /// What is new and alarming in the logs in this folder whose names begin so. A line that is not yet whole is left for
    /// later.
    ///
    /// # Errors
    /// Where they can not be read.
    pub fn look(&mut self, logs: &Path, prefix: &str) -> std::io::Result<Vec<String>> {
        let mut alarms = Vec::new();
        for entry in fs::read_dir(logs)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with(prefix) {
                continue;
            }
            let read = self.0.entry(entry.path()).or_default();
            let mut file = File::open(entry.path())?;
            file.seek(SeekFrom::Start(*read))?;
            let mut new = Vec::new();
            file.read_to_end(&mut new)?;
            let Some(whole) = new.iter().rposition(|byte| *byte == b'\n') else { continue };
            *read += whole as u64 + 1;
            let new = String::from_utf8_lossy(&new[..whole]);
            alarms.extend(new.lines().filter(|line| is_alarm(line)).map(|line| format!("{name}: {line}")));
        }
        Ok(alarms)
    }
}

fn is_alarm(line: &str) -> bool {
    WORDS.iter().any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn each_alarm_is_told_once_and_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = File::create(folder.path().join("postgres-1.log")).expect("a log");
        let mut alarms = Alarms::default();
        let mut look = |prefix: &str| alarms.look(folder.path(), prefix).expect("it is readable");
        log.write_all(b"LOG:  all is well\nLOG:  server process (PID 7) was term").expect("written");
        assert!(look("postgres-").is_empty());
        log.write_all(b"inated by signal 6: Aborted\nLOG:  on we go\n").expect("written");
        assert!(look("redis-").is_empty());
        let told = look("postgres-");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("postgres-1.log: LOG:  server process (PID 7)"), "{told:?}");
        assert!(look("postgres-").is_empty());
    }
}
