//! Which sockets of one worker thread have something to read, or room to write again.
//!
//! - One epoll for all of them, itself a single file to the runtime: a socket costs an entry here and no task, and
//!   one that has news wakes none.
//! - Level-triggered: what a socket's owner leaves unread is told of again, after all others had their turn.
//! - An owner that panics is taken for crashed; the others are told all the same.
//! - At most `BATCH` are told before the thread's other work has its turn.
//!
//! One thread owns all of this.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use slab::Slab;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Sockets told of in one go.
const BATCH: usize = 256;

/// Whoever owns a socket.
pub trait Owner {
    /// There may be something to read, or room to write. True where something may be left to read.
    fn on_ready(&self) -> bool;
    /// Its code panicked.
    fn crashed(&self);
}

pub struct Poller {
    epoll: AsyncFd<OwnedFd>,
    owners: RefCell<Slab<Rc<dyn Owner>>>,
}

/// A socket's place; the poller's owner of it is let go with [`Poller::forget`].
#[derive(Debug, Clone, Copy)]
pub struct Place(u32);

impl Poller {
    /// Starts it on this thread, for the life of its runtime.
    ///
    /// # Errors
    /// The system has no room for another epoll.
    pub fn start() -> io::Result<Rc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // SAFETY: an `OwnedFd` stays the same open file as long as it is owned, which is as long as the `AsyncFd` is.
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
        let poller = Rc::new(Self { epoll, owners: RefCell::default() });
        actix_rt::spawn(poller.clone().run());
        Ok(poller)
    }

    /// Has `owner` told of this socket from here on, of room to write only where `output` waits.
    pub fn watch(&self, socket: impl AsFd, owner: Rc<dyn Owner>, output: bool) -> io::Result<Place> {
        let mut owners = self.owners.borrow_mut();
        let vacant = owners.vacant_entry();
        let key = u32::try_from(vacant.key()).expect("sockets are bounded below 2^32");
        epoll::add(&self.epoll, socket, data(key), interest(output))?;
        vacant.insert(owner);
        Ok(Place(key))
    }

    /// From here on its owner is told of room to write where `output` waits, and not where none does.
    pub fn output_waits(&self, socket: impl AsFd, place: Place, output: bool) {
        if let Err(error) = epoll::modify(&self.epoll, socket, data(place.0), interest(output)) {
            log::error!(error:% = error; "a socket's interest could not be changed");
        }
    }

    /// Tells its owner no more, and lets it go.
    pub fn forget(&self, socket: impl AsFd, place: Place) {
        if let Err(error) = epoll::delete(&self.epoll, socket) {
            log::error!(error:% = error; "a socket could not be taken off its poller");
        }
        let owner = self.owners.borrow_mut().try_remove(place.0 as usize);
        // What it drops may come back here.
        drop(owner);
    }

    async fn run(self: Rc<Self>) {
        let mut events = Vec::with_capacity(BATCH);
        loop {
            let Ok(mut news) = self.epoll.readable().await else { return };
            events.clear();
            let waited = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default()));
            match waited {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => log::error!(error:% = error; "the worker's sockets cannot be polled"),
            }
            let mut more = events.len() == BATCH;
            for event in &events {
                more |= self.tell({ event.data }.u64() as usize);
            }
            if !more {
                news.clear_ready();
            }
            tokio::task::yield_now().await;
        }
    }

    /// An entry may be another's since the event was fetched: to be told in vain costs it one look.
    fn tell(&self, key: usize) -> bool {
        let Some(owner) = self.owners.borrow().get(key).cloned() else { return false };
        catch_unwind(AssertUnwindSafe(|| owner.on_ready())).unwrap_or_else(|_| {
            owner.crashed();
            false
        })
    }
}

fn data(key: u32) -> epoll::EventData {
    epoll::EventData::new_u64(key.into())
}

/// Errors and the end of a connection are always told of.
fn interest(output: bool) -> epoll::EventFlags {
    if output { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN }
}
