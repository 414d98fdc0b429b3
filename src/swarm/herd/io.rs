//! What sockets have to say, and what devices answer.

use std::io;
use std::time::Duration;

use mio::event::Event;
use rand::Rng;

use super::{Conn, Herd, Step, handshake_key};
use crate::swarm::behaviour::{Behaviour, Deed, Lot, chance};
use crate::swarm::record::Line;
use crate::swarm::socket::{self, Pongs};
use crate::swarm::tale::How;
use crate::swarm::visit::Act;
use crate::swarm::wire::{self, Answer, Frame, Say};
use crate::time::{Mono, Timestamp};

/// How long tokens of devices are good for: longer than any run.
const TOKEN_TTL: Duration = Duration::from_secs(30 * 86_400);

/// The pause between two dribbles of a slow handshake, in milliseconds.
const DRIBBLE_PAUSE_MS: std::ops::RangeInclusive<u64> = 50..=250;

/// What ends a connection while its socket is looked at.
enum Broken {
    Eof,
    Socket(io::Error),
    Answer(wire::BadAnswer),
    Refused { status: u16, retry_after: Option<Duration> },
}

impl From<io::Error> for Broken {
    fn from(e: io::Error) -> Self {
        Self::Socket(e)
    }
}

impl From<wire::BadAnswer> for Broken {
    fn from(e: wire::BadAnswer) -> Self {
        Self::Answer(e)
    }
}

impl Herd<'_> {
    pub(super) fn on_event(&mut self, place: usize, event: &Event) {
        let Some(conn) = self.conns.get(place) else { return };
        let outcome = match conn.visit.is_deaf() {
            true => deaf_hears(conn, event),
            false => self.converse(place, event),
        };
        match outcome {
            Ok(()) => self.arm(place),
            Err(broken) => self.on_broken(place, broken),
        }
    }

    fn converse(&mut self, place: usize, event: &Event) -> Result<(), Broken> {
        if self.conns[place].step == Step::Connecting {
            let stream = &self.conns[place].stream;
            if let Some(e) = stream.take_error()? {
                return Err(e.into());
            }
            if !event.is_writable() {
                return Ok(());
            }
            self.ask(place)?;
        } else if event.is_writable() {
            let conn = &mut self.conns[place];
            if let Some(pongs) = conn.output.resume(&mut conn.stream)? {
                self.pongs_written(place, pongs);
            }
        }
        match event.is_readable() || event.is_read_closed() || event.is_error() {
            true => self.read(place, event.is_read_closed() || event.is_error()),
            false => Ok(()),
        }
    }

    /// Sends the handshake. The token is made here and kept no longer than it takes to send it.
    fn ask(&mut self, place: usize) -> Result<(), Broken> {
        let plan = self.plan;
        let conn = &mut self.conns[place];
        conn.step = Step::Asked;
        let device = plan.device_id(conn.visit.device);
        let token = self.tokens.mint(&device, plan.device_type.as_ref(), TOKEN_TTL).token;
        let host = &plan.targets[usize::from(conn.target)].host;
        let request =
            wire::request(host, token.expose(), &handshake_key(plan, &conn.visit), plan.device_type.as_ref());
        if conn.visit.behaviour == Behaviour::Slow {
            conn.output.dribble(request, self.turn.mono);
        } else {
            conn.output.send(&mut conn.stream, &request, None)?;
        }
        Ok(())
    }

    /// Reads and handles all there is. `closed` says that an end or an error is behind it, which no further event tells.
    fn read(&mut self, place: usize, closed: bool) -> Result<(), Broken> {
        loop {
            let Some(conn) = self.conns.get_mut(place) else { return Ok(()) };
            if conn.visit.is_deaf() {
                return Ok(());
            }
            let got = socket::read(&mut conn.stream, &mut self.chunk)?;
            let Some(n) = got else { return Ok(()) };
            if n == 0 {
                return Err(Broken::Eof);
            }
            self.inbox.clear();
            self.inbox.extend_from_slice(&std::mem::take(&mut conn.rest));
            self.inbox.extend_from_slice(&self.chunk[..n]);
            self.on_bytes(place)?;
            // A read that is not full has taken all there was, unless the end is behind it.
            if n < self.chunk.len() && !closed {
                return Ok(());
            }
        }
    }

    /// Handles what is in the inbox; what is unfinished stays with the connection.
    fn on_bytes(&mut self, place: usize) -> Result<(), Broken> {
        if self.conns[place].step != Step::Upgraded && !self.on_answer(place)? {
            return Ok(());
        }
        while let Some(frame) = wire::frame(&mut self.inbox)? {
            let Some(conn) = self.conns.get_mut(place) else { return Ok(()) };
            conn.visit.on_frame(frame, self.turn, &self.plan.habits, &mut self.acts);
        }
        if let Some(conn) = self.conns.get_mut(place)
            && !self.inbox.is_empty()
        {
            conn.rest = self.inbox[..].into();
        }
        self.act(place);
        Ok(())
    }

    /// Whether the handshake is answered, and with 101.
    fn on_answer(&mut self, place: usize) -> Result<bool, Broken> {
        let conn = &mut self.conns[place];
        match wire::answer(&self.inbox, &handshake_key(self.plan, &conn.visit))? {
            Answer::Unfinished => {
                conn.rest = self.inbox[..].into();
                Ok(false)
            }
            Answer::Upgraded(length) => {
                conn.step = Step::Upgraded;
                self.tally.upgrade.take(self.turn.mono.since(conn.visit.dialled_at));
                bytes::Buf::advance(&mut self.inbox, length);
                Ok(true)
            }
            Answer::Refused { status, retry_after } => Err(Broken::Refused { status, retry_after }),
        }
    }

    pub(super) fn on_time(&mut self, place: usize) {
        let now = self.turn.mono;
        let conn = &mut self.conns[place];
        if conn.output.dribble_due().is_some_and(|at| at <= now) {
            let (seed, visit) = (self.plan.habits.seed, &conn.visit);
            let mut rng = chance(seed, Lot::Dribble, visit.device, now.0 as u32);
            let pause = Duration::from_millis(rng.random_range(DRIBBLE_PAUSE_MS));
            if let Err(e) = conn.output.next_dribble(&mut conn.stream, now, pause) {
                return self.on_broken(place, e.into());
            }
        }
        conn.visit.on_time(now, &self.plan.habits, &mut self.acts);
        self.act(place);
        self.arm(place);
    }

    /// Does what is in the acts.
    pub(super) fn act(&mut self, place: usize) {
        let mut acts = std::mem::take(&mut self.acts);
        let mut pongs = 0;
        self.outbox.clear();
        let mut last = None;
        for act in acts.drain(..) {
            match act {
                Act::Say(say) => {
                    pongs += u32::from(matches!(say, Say::Pong(_)));
                    say.write(&mut self.outbox);
                }
                Act::End(..) | Act::Fail(..) => last = last.or(Some(act)),
                act => self.do_one(place, act),
            }
        }
        self.acts = acts;
        let sent = self.send(place, pongs);
        match (last, sent) {
            (Some(Act::End(how, code)), _) => self.end(place, how, code, None),
            (Some(Act::Fail(why, code)), _) => self.fail(place, why, code),
            (_, Err(e)) => self.on_broken(place, e.into()),
            (_, Ok(())) => {}
        }
    }

    fn send(&mut self, place: usize, pongs: u32) -> io::Result<()> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let (since, since_wall) = (self.turn.mono, self.turn.wall);
        let pongs = (pongs > 0).then_some(Pongs { count: pongs, since, since_wall });
        let conn = &mut self.conns[place];
        if let Some(pongs) = conn.output.send(&mut conn.stream, &self.outbox, pongs)? {
            self.pongs_written(place, pongs);
        }
        Ok(())
    }

    fn pongs_written(&mut self, place: usize, pongs: Pongs) {
        let (now, wall) = (Mono::now(), Timestamp::now());
        self.conns[place].visit.pongs_written(pongs.count, pongs.since, now, wall);
        self.tally.pulse.pongs += u64::from(pongs.count);
        self.tally.turnaround.take(now.since(pongs.since));
    }

    fn do_one(&mut self, place: usize, act: Act) {
        let conn = &self.conns[place];
        let (number, session, device) = (conn.visit.number, conn.visit.session, conn.visit.device);
        match act {
            Act::Did(deed) => {
                if deed == Deed::Deaf
                    && let Err(e) = socket::deafen(&conn.stream)
                {
                    log::debug!(error:% = e; "the receive buffer stays as it is");
                }
                *self.tally.deeds.entry(deed.as_str().to_owned()).or_default() += 1;
                self.tell(Line::Did { conn: number, session, what: deed.as_str() });
            }
            Act::Linger => {
                if let Err(e) = socket::linger_not(&conn.stream) {
                    log::warn!(error:% = e; "a connection cannot be reset, it is closed");
                }
            }
            Act::TellLoss => self.tell(Line::Did { conn: number, session, what: "lose" }),
            Act::Welcomed(welcome) => self.welcomed(place, &welcome),
            Act::PingTook(took) => self.tally.ping.take(took),
            Act::HeartbeatTook(took) => {
                self.tally.heartbeats += 1;
                self.tally.heartbeat.take(took);
            }
            Act::NotUnderstood => self.tally.not_understood += 1,
            Act::Again => self.dial_beside(device),
            Act::Say(_) | Act::End(..) | Act::Fail(..) => {}
        }
    }

    fn on_broken(&mut self, place: usize, broken: Broken) {
        let Some(conn) = self.conns.get(place) else { return };
        let live = conn.visit.is_live();
        let (how, error) = match broken {
            Broken::Refused { status, retry_after } => return self.refuse(place, status, retry_after),
            Broken::Eof => (How::Eof, "end of stream".to_owned()),
            Broken::Socket(e) => (how_of(&e), e.to_string()),
            Broken::Answer(e) => (How::Error, e.to_string()),
        };
        // A close frame may lie before the error that was met first, while writing.
        match self.last_words(place) {
            Some(code) if live => self.end(place, How::CloseFrame, code, Some(&error)),
            Some(code) => self.fail(place, &error, code),
            None if live => self.end(place, how, None, (how == How::Error).then_some(error.as_str())),
            None => self.fail(place, &error, None),
        }
    }

    /// The code of a close frame among what is still unread.
    fn last_words(&mut self, place: usize) -> Option<Option<u16>> {
        let conn = &mut self.conns[place];
        if conn.visit.is_deaf() || conn.step != Step::Upgraded {
            return None;
        }
        self.inbox.clear();
        self.inbox.extend_from_slice(&conn.rest);
        if let Ok(Some(n)) = socket::read(&mut conn.stream, &mut self.chunk) {
            self.inbox.extend_from_slice(&self.chunk[..n]);
        }
        while let Ok(Some(frame)) = wire::frame(&mut self.inbox) {
            if let Frame::Close(code) = frame {
                return Some(code);
            }
        }
        None
    }
}

/// A device that does not read notices that its connection is gone all the same.
fn deaf_hears(conn: &Conn, event: &Event) -> Result<(), Broken> {
    if let Some(e) = conn.stream.take_error()? {
        return Err(e.into());
    }
    match event.is_read_closed() || event.is_error() {
        true => Err(Broken::Eof),
        false => Ok(()),
    }
}

fn how_of(e: &io::Error) -> How {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    match e.kind() {
        ConnectionReset | ConnectionAborted | BrokenPipe => How::Reset,
        _ => How::Error,
    }
}
