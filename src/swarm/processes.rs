//! One swarm of several processes.
//!
//! The first process starts itself again, once for each part, with its own arguments and `--part`. Parts write their counts
//! to their standard output, a JSON object a line: each second, and all at the end. A part dies with the first process:
//! the kernel sees to that. Parts are in process groups of their own, so that a terminal's interrupt reaches them through
//! the first process alone, and is not counted twice.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::tally::{Pulse, Tally};
use super::{SwarmError, signals};
use crate::config::Settings;

/// What parts have said and the first process has not taken yet.
const QUEUE: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
enum Counts {
    Pulse(Pulse),
    All(Box<Tally>),
}

/// What the first process waits for.
enum News {
    Said(usize, Counts),
    Ended(usize),
    Signal,
}

/// The way to the first process.
pub struct Parent;

/// Ties this process to its parent's life.
///
/// # Errors
/// A parent that is gone already.
pub fn part_of_parent() -> io::Result<Parent> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Before that call it may have died unnoticed, and another has taken its place.
    match getppid().is_none_or(Pid::is_init) {
        true => Err(io::Error::other("the first process is gone")),
        false => Ok(Parent),
    }
}

impl Parent {
    /// A parent that is gone takes this process with it, so there is no failure to tell.
    pub fn pulse(&self, pulse: &Pulse) {
        let _ = say(&Counts::Pulse(pulse.clone()));
    }

    pub fn tally(&self, tally: &Tally) -> io::Result<()> {
        say(&Counts::All(Box::new(tally.clone())))
    }
}

fn say(counts: &Counts) -> io::Result<()> {
    let mut line = serde_json::to_vec(counts)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// The parts; whatever happens, none outlives this.
struct Parts(Vec<Child>);

impl Drop for Parts {
    fn drop(&mut self) {
        for part in &mut self.0 {
            // One that has ended is only waited for.
            let _ = part.kill();
            let _ = part.wait();
        }
    }
}

/// Runs all parts to their ends and adds up what they counted.
///
/// # Errors
/// A part that cannot be started, or ends without its counts.
pub fn run(
    of: u32,
    seed: u64,
    settings: &Settings,
    mut on_pulse: impl FnMut(&Pulse),
) -> Result<Tally, SwarmError> {
    // Made by one, not by all at once.
    settings.token_secret().map_err(SwarmError::Key)?;
    let (sender, news) = sync_channel(QUEUE);
    pass_signals_on(sender.clone())?;
    let mut parts = Parts(Vec::new());
    for index in 0..of {
        let mut part = start(index, of, seed)?;
        let out = part.stdout.take();
        parts.0.push(part);
        if let Some(out) = out {
            listen(index as usize, out, sender.clone());
        }
    }
    gather(&mut parts, &news, &mut on_pulse)
}

fn start(index: u32, of: u32, seed: u64) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1));
    command.arg(format!("--part={index}/{of}"));
    // A seed that was drawn is drawn once for all.
    if !std::env::args().any(|arg| arg == "--seed" || arg.starts_with("--seed=")) {
        command.arg(format!("--seed={seed}"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).spawn()
}

fn listen(index: usize, out: ChildStdout, sender: SyncSender<News>) {
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if let Ok(counts) = serde_json::from_str(&line)
                && sender.send(News::Said(index, counts)).is_err()
            {
                return;
            }
        }
        let _ = sender.send(News::Ended(index));
    });
}

fn pass_signals_on(sender: SyncSender<News>) -> io::Result<()> {
    let mut signals = signals()?;
    std::thread::spawn(move || {
        let mut byte = [0];
        while io::Read::read_exact(&mut signals, &mut byte).is_ok() && sender.send(News::Signal).is_ok() {}
    });
    Ok(())
}

fn gather(
    parts: &mut Parts,
    news: &Receiver<News>,
    on_pulse: &mut impl FnMut(&Pulse),
) -> Result<Tally, SwarmError> {
    let mut pulses = vec![Pulse::default(); parts.0.len()];
    let mut tallies: Vec<Option<Box<Tally>>> = (0..parts.0.len()).map(|_| None).collect();
    let mut ended = 0;
    while ended < parts.0.len()
        && let Ok(news) = news.recv()
    {
        match news {
            News::Said(index, Counts::All(tally)) => tallies[index] = Some(tally),
            News::Said(index, Counts::Pulse(pulse)) => {
                pulses[index] = pulse;
                if index == 0 {
                    let mut sum = Pulse::default();
                    pulses.iter().for_each(|pulse| sum.add(pulse));
                    on_pulse(&sum);
                }
            }
            News::Signal => parts.0.iter().for_each(tell_to_leave),
            News::Ended(index) => {
                ended += 1;
                let status = parts.0[index].wait()?;
                if tallies[index].is_none() {
                    return Err(SwarmError::Part { index, status });
                }
            }
        }
    }
    let mut sum = Tally::default();
    tallies.iter().flatten().for_each(|tally| sum.add(tally));
    Ok(sum)
}

fn tell_to_leave(part: &Child) {
    // One that has ended already needs no telling; it is not waited for yet, so its id is still its own.
    if let Some(pid) = Pid::from_raw(part.id() as i32)
        && let Err(e) = kill_process(pid, Signal::TERM)
    {
        log::debug!(pid = part.id(), error:% = e; "a part was not told to leave");
    }
}
