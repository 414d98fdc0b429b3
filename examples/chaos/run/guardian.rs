//! Clears away what a run leaves in the kernel, however the run ended: processes, mounts, namespaces, its folder.
//!
//! It is a process of its own that waits for the end of its input, which is the end of the run's process. It kills only
//! what lives in the run's own namespaces, and those were made by the run.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// `$1` the prefix of the namespaces' names, `$2` the folder, `$3` whether it stays.
const SCRIPT: &str = r#"
cat >/dev/null
for path in /run/netns/"$1"-*; do
    name=${path##*/}
    # The run itself may be in this one.
    [ "$name" = "$1-runner" ] && continue
    [ -e "$path" ] && for pid in $(ip netns pids "$name"); do kill -KILL "$pid"; done
done
# What libfaketime keeps for a process stays where that is killed.
for pid in $(cat "$2"/*/clocked 2>/dev/null); do
    rm -f /dev/shm/faketime_shm_"$pid" /dev/shm/sem.faketime_sem_"$pid"
done
# A killed Postgres leaves its lock in the System V shared memory behind.
lock=$(sed -n '7s/.* //p' "$2"/postgres/disk/data/postmaster.pid 2>/dev/null)
[ -n "$lock" ] && ipcrm -m "$lock"
while read -r _ at _; do
    case $at in "$2"/*) umount -l "$at" ;; esac
done </proc/mounts
for path in /run/netns/"$1"-*; do [ -e "$path" ] && ip netns del "${path##*/}"; done
[ "$3" = keep ] || rm -rf "$2"
"#;

/// The guardian of one run. Dropped, it does its work and is waited for.
pub struct Guardian(Child);

impl Guardian {
    /// Sets one over what is to come.
    ///
    /// # Errors
    /// Where there is no `sh`.
    pub fn set(prefix: &str, folder: &Path, keep: bool) -> anyhow::Result<Self> {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "guardian", prefix])
            .arg(folder)
            .arg(if keep { "keep" } else { "remove" })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A signal to all of the run's group is not for it: it has to outlive the run.
            .process_group(0)
            .spawn()
            .context("sh can not be run")?;
        Ok(Self(child))
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
