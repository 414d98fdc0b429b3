//! So many places, and who waits for one.

use std::cell::Cell;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Of one thread.
pub struct Places {
    free: Semaphore,
    waiting: Cell<usize>,
    most_waiting: usize,
    /// For so many of them someone makes room already.
    promised: Cell<usize>,
    wanted: Notify,
}

/// Who waits, for as long as he does.
struct Want<'a> {
    places: &'a Places,
    got: bool,
}

impl Drop for Want<'_> {
    fn drop(&mut self) {
        let Places { waiting, promised, .. } = self.places;
        waiting.set(waiting.get() - 1);
        // A place is as good as another: whoever gets one has taken up a promise, and what is promised beyond those who
        // wait is owed to nobody.
        let owed = promised.get().saturating_sub(self.got.into());
        promised.set(owed.min(waiting.get()));
    }
}

impl Places {
    pub fn new(places: usize) -> Self {
        let (waiting, promised) = (Cell::new(0), Cell::new(0));
        let (free, wanted) = (Semaphore::new(places), Notify::new());
        Self { free, waiting, most_waiting: usize::MAX, promised, wanted }
    }

    /// The same where no more wait at once.
    pub fn with_most_waiting(self, most_waiting: usize) -> Self {
        Self { most_waiting, ..self }
    }

    /// A place, once there is one; they are given in the order of asking. None where too many wait already.
    pub async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.free.try_acquire() {
            return Some(place);
        }
        if self.waiting.get() >= self.most_waiting {
            return None;
        }
        self.waiting.set(self.waiting.get() + 1);
        let mut want = Want { places: self, got: false };
        self.wanted.notify_one();
        let place = self.free.acquire().await.expect("the places are never closed");
        want.got = true;
        Some(place)
    }

    /// Returns when someone waits for whom nobody else makes room.
    pub async fn needed(&self) {
        loop {
            let wanted = self.wanted.notified();
            if self.promised.get() < self.waiting.get() {
                self.promised.set(self.promised.get() + 1);
                return;
            }
            wanted.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    fn now<T>(enter: impl Future<Output = Option<T>>) -> T {
        enter.now_or_never().flatten().expect("a place")
    }

    #[test]
    fn no_more_wait_than_may() {
        let places = Places::new(1).with_most_waiting(1);
        let held = now(places.enter());
        let mut waits = pin!(places.enter());
        assert!(waits.as_mut().now_or_never().is_none());
        assert!(places.enter().now_or_never().expect("an answer at once").is_none());
        drop(held);
        let held = now(waits);
        assert!(places.enter().now_or_never().is_none(), "one may wait again");
        drop(held);
        drop(now(places.enter()));
    }

    #[test]
    fn as_many_make_room_as_wait() {
        let places = Places::new(2);
        let [one, two] = [places.enter(), places.enter()].map(now);
        let (mut first, mut second) = (pin!(places.needed()), pin!(places.needed()));
        assert!(
            first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none(),
            "nobody waits"
        );
        let (mut next, mut last) = (pin!(places.enter()), pin!(places.enter()));
        assert!(next.as_mut().now_or_never().is_none());
        assert!(first.now_or_never().is_some());
        assert!(second.as_mut().now_or_never().is_none(), "one is enough for one");
        assert!(last.as_mut().now_or_never().is_none());
        drop(one);
        let one = now(next);
        assert!(second.now_or_never().is_some(), "the other waits yet");
        drop(two);
        let two = now(last);
        assert!(places.needed().now_or_never().is_none());
        drop((one, two));
        assert_eq!((places.waiting.get(), places.promised.get()), (0, 0));
    }

    #[test]
    fn who_gives_up_is_waited_for_by_nobody() {
        let places = Places::new(1);
        let held = now(places.enter());
        {
            let (mut gives_up, mut stays) = (pin!(places.enter()), pin!(places.enter()));
            assert!(gives_up.as_mut().now_or_never().is_none());
            assert!(places.needed().now_or_never().is_some());
            assert!(stays.as_mut().now_or_never().is_none());
            gives_up.set(places.enter());
            assert!(places.needed().now_or_never().is_none(), "room is made for the one who stays");
            drop(held);
            assert!(stays.now_or_never().is_some());
        }
        assert!(places.needed().now_or_never().is_none());
        assert_eq!((places.waiting.get(), places.promised.get()), (0, 0));
        assert!(places.enter().now_or_never().is_some());
    }
}
