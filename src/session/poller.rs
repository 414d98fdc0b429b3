//! Which sockets of one worker thread have something to read, or room to write again.
//!
//! - One epoll for all of them, itself a single file to the runtime: a socket costs an entry here and no task, and
//!   one that has news wakes none.
//! - Edge-triggered: news is told once, so that a socket without any costs nothing while others have some. Who leaves
//!   something unread is told again, after all others had their turn; so is who may have yet to read that the peer is gone.
//! - An owner that panics is taken for crashed; the others are told all the same.
//! - At most `BATCH` with news, and as many that had some before, are told before the thread's other work has its turn.
//!
//! One thread owns all of this.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventFlags};
use rustix::io::Errno;
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

/// To read, to write again, and the end of a connection.
const INTEREST: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);
/// The end is there to be read, perhaps behind something else.
const END: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

/// A socket's place; the poller's owner of it is let go with [`Poller::forget`].
#[derive(Debug, Clone, Copy)]
pub struct Place(u32);

impl Poller {
    /// Starts it on this thread, for the life of its runtime.
    ///
    /// # Errors
    /// The system has no room for another epoll.
    #[expect(unsafe_code, reason = "tokio has no safe form of this left")]
    pub fn start() -> io::Result<Rc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // SAFETY: an `OwnedFd` stays the same open file as long as it is owned, which is as long as the `AsyncFd` is.
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
        let poller = Rc::new(Self { epoll, owners: RefCell::default() });
        actix_rt::spawn(poller.clone().run());
        Ok(poller)
    }

    /// Has `owner` told of this socket from here on.
    pub fn watch(&self, socket: impl AsFd, owner: Rc<dyn Owner>) -> io::Result<Place> {
        let mut owners = self.owners.borrow_mut();
        let vacant = owners.vacant_entry();
        let key = u32::try_from(vacant.key()).expect("sockets are bounded below 2^32");
        epoll::add(&self.epoll, socket, data(key), INTEREST)?;
        vacant.insert(owner);
        Ok(Place(key))
    }

    /// Has its owner told once more of what there is.
    pub fn remind(&self, socket: impl AsFd, place: Place) {
        if let Err(error) = epoll::modify(&self.epoll, socket, data(place.0), INTEREST) {
            log::error!(error:% = error; "a socket's owner could not be reminded");
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
        let (mut events, mut again) = (Vec::with_capacity(BATCH), VecDeque::new());
        loop {
            let ready = match again.is_empty() {
                true => Some(self.epoll.readable().await),
                false => None,
            };
            events.clear();
            let waited = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default()));
            if let Err(error) = waited {
                if error != Errno::INTR {
                    log::error!(error:% = error; "the worker's sockets cannot be polled");
                }
                tokio::task::yield_now().await;
                continue;
            }
            let known: Vec<News> = again.drain(..again.len().min(BATCH)).collect();
            let fetched = events.iter().filter_map(|event| self.news(event));
            again.extend(known.into_iter().chain(fetched).filter(|news| self.tell(news)));
            if events.len() >= BATCH || !again.is_empty() {
                tokio::task::yield_now().await;
                continue;
            }
            match ready {
                Some(Ok(mut ready)) => ready.clear_ready(),
                Some(Err(_)) => return,
                None => {}
            }
        }
    }

    fn news(&self, &Event { flags, data }: &Event) -> Option<News> {
        let key = data.u64() as usize;
        let owner = self.owners.borrow().get(key)?.clone();
        Some(News { key, owner, end: flags.intersects(END) })
    }

    /// True where it is to be told again.
    fn tell(&self, News { key, owner, end }: &News) -> bool {
        let Ok(more) = catch_unwind(AssertUnwindSafe(|| owner.on_ready())) else {
            if catch_unwind(AssertUnwindSafe(|| owner.crashed())).is_err() {
                log::error!("a session panicked again at its end");
            }
            return false;
        };
        (more || *end) && self.owners.borrow().get(*key).is_some_and(|now| Rc::ptr_eq(now, owner))
    }
}

/// What one owner is told.
struct News {
    key: usize,
    owner: Rc<dyn Owner>,
    /// The end is there: told again until it was read, and the owner let go.
    end: bool,
}

fn data(key: u32) -> epoll::EventData {
    epoll::EventData::new_u64(key.into())
}
