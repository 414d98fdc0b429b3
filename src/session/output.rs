//! Output that waits for the kernel, and how much memory all of it takes on this thread.
//!
//! What is counted is memory taken, not bytes to be sent: a buffer grows by doubling. It is counted from when it is taken
//! until it is given back, whoever drops it.

use std::cell::Cell;

use bytes::BytesMut;

/// What one device may have waiting although all together have too much: what an answering one needs.
pub const SHARE: usize = 4 * 1024;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Memory that waiting output takes on this thread, in bytes.
pub fn held() -> usize {
    HELD.get()
}

/// The output of one socket.
#[derive(Debug, Default)]
pub struct Waiting {
    pub bytes: BytesMut,
    counted: usize,
}

impl Waiting {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // What was sent from its front is still there, until the rest is moved.
        let taken = self.bytes.capacity().max(self.counted);
        HELD.set(HELD.get() + taken - self.counted);
        self.counted = taken;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        HELD.set(HELD.get().saturating_sub(self.counted));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    #[test]
    fn what_is_taken_is_counted_until_it_is_given_back() {
        let before = held();
        let mut one = Waiting::default();
        one.push(&[0; 1000]);
        let mut other = Waiting::default();
        other.push(&[0; 5000]);
        assert!(held() - before >= 6000);
        one.bytes.advance(900);
        one.push(&[0; 10]);
        assert!(held() - before >= 6000, "what was sent is not free yet");
        drop(one);
        assert!((5000..6000).contains(&(held() - before)), "{}", held() - before);
        drop(other);
        assert_eq!(held(), before);
    }
}
