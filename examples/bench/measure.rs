//! What the kernel knows of a process and of its sockets, read from `/proc`.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context;

/// A tick of `/proc/PID/stat`: 10 ms on every Linux, whatever the kernel's own is.
const TICKS_A_SECOND: f64 = 100.0;

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub rss: u64,
    /// Its share of what it has in common with others, and all of its own.
    pub pss: u64,
}

/// Processor time of all threads of a process so far, in seconds, those that ended included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cpu {
    pub user: f64,
    pub system: f64,
}

impl Cpu {
    pub fn whole(self) -> f64 {
        self.user + self.system
    }

    pub fn since(self, before: Cpu) -> Cpu {
        Cpu { user: self.user - before.user, system: self.system - before.system }
    }
}

/// The median time, in milliseconds, that the disk under the temporary files takes to keep one page for good.
///
/// # Errors
/// A file cannot be written there.
pub fn fsync_ms() -> anyhow::Result<f64> {
    const TRIES: usize = 51;
    let mut file = tempfile::tempfile()?;
    let mut taken = Vec::with_capacity(TRIES);
    for _ in 0..TRIES {
        file.write_all(&[1; 4096])?;
        let begun = Instant::now();
        file.sync_data()?;
        taken.push(begun.elapsed());
    }
    taken.sort_unstable();
    Ok(taken[TRIES / 2].as_secs_f64() * 1e3)
}

/// # Errors
/// A process that is gone, or another's.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let rollup = read(&format!("/proc/{pid}/smaps_rollup"))?;
    let of = |name: &str| kib(&rollup, name).with_context(|| format!("no {name} in smaps_rollup"));
    Ok(Memory { rss: of("Rss:")?, pss: of("Pss:")? })
}

/// # Errors
/// A process that is gone.
pub fn cpu(pid: u32) -> anyhow::Result<Cpu> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    parse_cpu(&stat).with_context(|| format!("/proc/{pid}/stat has no times: {stat:?}"))
}

/// The name in brackets may hold spaces; the fields that follow it do not.
fn parse_cpu(stat: &str) -> Option<Cpu> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |n: usize| Some(fields.get(n)?.parse::<f64>().ok()? / TICKS_A_SECOND);
    Some(Cpu { user: ticks(11)?, system: ticks(12)? })
}

/// Kernel memory of the whole machine that sockets live in, in bytes: slabs, and the buffers of TCP. Both ends of each
/// connection are on this machine, and whatever else it does is in it too.
///
/// # Errors
/// A kernel that does not tell.
pub fn kernel_memory() -> anyhow::Result<u64> {
    let slab = kib(&read("/proc/meminfo")?, "Slab:").context("no Slab in /proc/meminfo")?;
    let sockets = read("/proc/net/sockstat")?;
    let tcp = sockets.lines().find(|line| line.starts_with("TCP:"));
    let pages = tcp.and_then(|line| line.rsplit_once("mem ")?.1.trim().parse::<u64>().ok());
    Ok(slab + pages.context("no mem of TCP in /proc/net/sockstat")? * rustix::param::page_size() as u64)
}

/// Waits until a process's memory stands still: for at least `settle`, and for no longer than six times that.
///
/// # Errors
/// A process that is gone.
pub fn settled(pid: u32, settle: Duration) -> anyhow::Result<Memory> {
    std::thread::sleep(settle);
    let mut last = memory(pid)?;
    for _ in 0..10 {
        std::thread::sleep(settle / 2);
        let now = memory(pid)?;
        let is_still = now.pss.abs_diff(last.pss) * 500 <= last.pss;
        last = now;
        if is_still {
            break;
        }
    }
    Ok(last)
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? * 1024)
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path}: is the process gone?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_hides_no_times() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 75 0 0 20 0 3 0 100 1 1";
        assert_eq!(parse_cpu(stat), Some(Cpu { user: 2.5, system: 0.75 }));
        assert_eq!(parse_cpu("7 (a)"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let own = memory(std::process::id()).unwrap();
        assert!(own.pss > 0 && own.pss <= own.rss, "{own:?}");
        assert!(cpu(std::process::id()).is_ok());
        assert!(kernel_memory().unwrap() > 0);
    }
}
