//! What kinds of devices there are, and chance: a device's behaviour and times are a function of the seed, of the
//! device's number, and of which of its visits it is. Nothing here keeps a state.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, LogNormal};
use serde::Serialize;

macro_rules! behaviours {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// How a device behaves in each of its sessions.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Behaviour {
            $($(#[$doc])* $variant,)*
        }

        impl Behaviour {
            pub const ALL: &[Behaviour] = &[$(Behaviour::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Behaviour::$variant => $name),* }
            }
        }
    };
}

behaviours! {
    /// Answers every ping at once.
    Answer = "answer";
    /// Answers every ping, but some time after it came.
    Late = "late";
    /// Leaves a share of the pings unanswered.
    Lossy = "lossy";
    /// After its stay it reads on and answers nothing.
    Silent = "silent";
    /// After its stay it reads nothing more.
    Deaf = "deaf";
    /// After its stay it resets the connection.
    Reset = "reset";
    /// After its stay it sends a close frame.
    Close = "close";
    /// After its stay it says `bye`.
    Bye = "bye";
    /// After its stay its socket is closed without a word.
    Vanish = "vanish";
    /// Comes and goes every second or so.
    Flap = "flap";
    /// Connects a second time while the first connection lives.
    Twice = "twice";
    /// Sends its handshake in dribbles, then answers.
    Slow = "slow";
}

impl Behaviour {
    /// What it does at the end of its stay.
    pub fn deed(self) -> Option<Deed> {
        match self {
            Self::Answer | Self::Late | Self::Lossy | Self::Slow => None,
            Self::Silent => Some(Deed::Silent),
            Self::Deaf => Some(Deed::Deaf),
            Self::Reset => Some(Deed::Reset),
            Self::Close | Self::Flap => Some(Deed::Close),
            Self::Bye => Some(Deed::Bye),
            Self::Vanish => Some(Deed::Vanish),
            Self::Twice => Some(Deed::Again),
        }
    }
}

/// What a device does of its own will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Silent,
    Deaf,
    Reset,
    Close,
    Bye,
    Vanish,
    /// Heard nothing for too long and closed its socket without a word: a device of any behaviour may come to that.
    GaveUp,
    /// Connects once more; nothing happens to this connection by that.
    Again,
}

impl Deed {
    /// Its word in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Deaf => "deaf",
            Self::Reset => "reset",
            Self::Close => "close",
            Self::Bye => "bye",
            Self::Vanish => "vanish",
            Self::GaveUp => "gave_up",
            Self::Again => "again",
        }
    }
}

/// Shares of behaviours; at least one is above zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix(Vec<(Behaviour, u32)>);

/// The largest share, so that no sum overflows.
const MAX_SHARE: u32 = 1_000_000;

/// Why a mix was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMix {
    #[error("{0:?} is not of the form NAME=SHARE, as answer=80")]
    Form(String),
    #[error("{0:?} is no behaviour, allowed are {names}", names = names())]
    Name(String),
    #[error("{0:?} is no share, allowed is a whole number of 0 to {MAX_SHARE}")]
    Share(String),
    #[error("{0} is there twice, allowed is once")]
    Twice(&'static str),
    #[error("every share is 0, at least one must be more")]
    Empty,
}

fn names() -> String {
    Behaviour::ALL.iter().map(|b| b.as_str()).collect::<Vec<_>>().join(", ")
}

impl Default for Mix {
    fn default() -> Self {
        Self(vec![(Behaviour::Answer, 100)])
    }
}

impl std::str::FromStr for Mix {
    type Err = BadMix;

    fn from_str(text: &str) -> Result<Self, BadMix> {
        let mut shares: Vec<(Behaviour, u32)> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (name, share) = part.split_once('=').ok_or_else(|| BadMix::Form(part.to_owned()))?;
            let behaviour = Behaviour::ALL.iter().copied().find(|b| b.as_str() == name);
            let behaviour = behaviour.ok_or_else(|| BadMix::Name(name.to_owned()))?;
            let share = share.parse().ok().filter(|n| *n <= MAX_SHARE);
            let share = share.ok_or_else(|| BadMix::Share(part.to_owned()))?;
            if shares.iter().any(|(b, _)| *b == behaviour) {
                return Err(BadMix::Twice(behaviour.as_str()));
            }
            shares.push((behaviour, share));
        }
        if shares.iter().all(|(_, share)| *share == 0) {
            return Err(BadMix::Empty);
        }
        Ok(Self(shares))
    }
}

impl Mix {
    /// How many connections a device may have at a time.
    pub fn lines(&self) -> u64 {
        if self.0.iter().any(|(b, share)| *b == Behaviour::Twice && *share > 0) { 2 } else { 1 }
    }

    /// The behaviour of a device. Neighbours are spread over the shares as evenly as can be, so that a small swarm
    /// has its kinds too: steps of the golden ratio around a circle, from a start that the seed gives.
    pub fn of(&self, seed: u64, device: u32) -> Behaviour {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let start = chance(seed, Lot::Start, 0, 0).random::<u64>();
        let place = start.wrapping_add(u64::from(device).wrapping_mul(GOLDEN));
        let total: u64 = self.0.iter().map(|(_, share)| u64::from(*share)).sum();
        let mut at = ((u128::from(place) * u128::from(total)) >> 64) as u64;
        for (behaviour, share) in &self.0 {
            match at.checked_sub(u64::from(*share)) {
                Some(rest) => at = rest,
                None => return *behaviour,
            }
        }
        unreachable!("a place on the circle is below the sum of the shares")
    }
}

/// What a draw is for, so that draws for different things do not resemble each other.
#[derive(Debug, Clone, Copy)]
pub enum Lot {
    Start = 1,
    Stay = 2,
    Backoff = 3,
    Loss = 4,
    Lateness = 5,
    Phase = 6,
    Dribble = 7,
    Key = 8,
}

/// The generator for one lot of one device in one of its visits.
pub fn chance(seed: u64, lot: Lot, device: u32, visit: u32) -> SmallRng {
    // Odd constants spread the parts over the word; the generator's own seeding mixes them.
    let mixed = seed
        ^ (lot as u64).wrapping_mul(0xd6e8_feb8_6659_fd93)
        ^ u64::from(device).wrapping_mul(0xa076_1d64_78bd_642f)
        ^ u64::from(visit).wrapping_mul(0xe703_7ed1_a0b4_28db);
    SmallRng::seed_from_u64(mixed)
}

/// How long a device that will do something behaves before it does.
pub fn stay(
    seed: u64,
    device: u32,
    visit: u32,
    behaviour: Behaviour,
    bounds: (Duration, Duration),
) -> Duration {
    let (min, max) = match behaviour {
        Behaviour::Flap => (Duration::from_millis(500), Duration::from_millis(1_500)),
        _ => bounds,
    };
    chance(seed, Lot::Stay, device, visit).random_range(min..=max)
}

/// How late the answer to a device's `n`th ping is: log-normal around `median`, at most sixteen times that.
pub fn lateness(seed: u64, device: u32, n: u32, median: Duration) -> Duration {
    const SIGMA: f64 = 0.8;
    let factor =
        LogNormal::new(0.0, SIGMA).map_or(1.0, |d| d.sample(&mut chance(seed, Lot::Lateness, device, n)));
    median.mul_f64(factor.clamp(0.0, 16.0))
}

/// Whether a device leaves its `n`th ping unanswered.
pub fn loses(seed: u64, device: u32, n: u32, share: f64) -> bool {
    chance(seed, Lot::Loss, device, n).random_bool(share)
}

/// Where in its period something that comes again and again begins, so that devices do not march in step.
pub fn phase(seed: u64, device: u32, visit: u32, period: Duration) -> Duration {
    chance(seed, Lot::Phase, device, visit).random_range(Duration::ZERO..=period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_gives_its_shares_and_the_same_again() {
        let mix: Mix = "answer=80,silent=15,deaf=5".parse().unwrap();
        let count = |seed, which| (1..=1_000).filter(|n| mix.of(seed, *n) == which).count();
        for seed in [0, 1, 42, u64::MAX] {
            for (which, share) in [(Behaviour::Answer, 800), (Behaviour::Silent, 150), (Behaviour::Deaf, 50)]
            {
                assert!(count(seed, which).abs_diff(share) <= 5, "seed {seed}: {which:?}");
            }
            assert_eq!(count(seed, Behaviour::Reset), 0);
            assert!((1..100).all(|n| mix.of(seed, n) == mix.of(seed, n)));
        }
        assert!((1..100).any(|n| mix.of(1, n) != mix.of(2, n)), "the seed does not matter");
    }

    #[test]
    fn a_bad_mix_is_refused_with_what_is_allowed() {
        for (text, part) in [
            ("answr=1", "vanish"),
            ("answer", "NAME=SHARE"),
            ("answer=x", "whole number"),
            ("answer=-1", "whole number"),
            ("answer=1,answer=2", "once"),
            ("answer=0", "at least one"),
            ("", "at least one"),
        ] {
            let refused = text.parse::<Mix>().unwrap_err().to_string();
            assert!(refused.contains(part), "{text:?}: {refused}");
        }
    }

    #[test]
    fn chance_keeps_to_its_bounds() {
        let (min, max) = (Duration::from_secs(10), Duration::from_secs(60));
        let stays: Vec<_> = (0..500).map(|n| stay(7, n, 0, Behaviour::Reset, (min, max))).collect();
        assert!(stays.iter().all(|s| (min..=max).contains(s)));
        assert!(
            stays.iter().any(|s| *s < min + (max - min) / 4)
                && stays.iter().any(|s| *s > max - (max - min) / 4)
        );
        assert!(stay(7, 1, 0, Behaviour::Flap, (min, max)) < Duration::from_secs(2));
        let lost = (0..10_000).filter(|n| loses(7, 1, *n, 0.2)).count();
        assert!(lost.abs_diff(2_000) < 200, "{lost}");
        let median = Duration::from_millis(200);
        let below = (0..1_000).filter(|n| lateness(7, 1, *n, median) < median).count();
        assert!(below.abs_diff(500) < 80, "{below}");
        assert!((0..1_000).all(|n| lateness(7, 1, n, median) <= median * 16));
    }
}
