//! Safeties that can be taken away, to see that their absence is noticed.
//!
//! Only a build with the feature `chaos` can do without one; in every other, [`lacks`] is a constant and its callers are
//! as if it were not there. `CHAOS_WITHOUT` names them, separated by commas: it is no setting of lastpong, and
//! read here alone.

/// What keeps a promise, and can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// `durable_welcome`: a device is welcomed only once its start is durable (promise P1).
    DurableWelcome,
    /// `stall_guard`: no deadline passes while this process stands still, and what lies unread is read before anybody
    /// is judged (promise P4).
    StallGuard,
    /// `recovery`: what ran when its node died is ended as lost (promise P1).
    Recovery,
}

#[cfg(feature = "chaos")]
impl Safety {
    const ALL: [Self; 3] = [Self::DurableWelcome, Self::StallGuard, Self::Recovery];

    fn name(self) -> &'static str {
        match self {
            Self::DurableWelcome => "durable_welcome",
            Self::StallGuard => "stall_guard",
            Self::Recovery => "recovery",
        }
    }
}

/// Whether this process is to do without it.
#[cfg(not(feature = "chaos"))]
#[inline(always)]
pub const fn lacks(_: Safety) -> bool {
    false
}

/// Whether this process is to do without it.
///
/// # Panics
/// Where `CHAOS_WITHOUT` has a name that is none: a trial of what is misspelt would prove nothing.
#[cfg(feature = "chaos")]
pub fn lacks(safety: Safety) -> bool {
    use std::sync::LazyLock;

    static WITHOUT: LazyLock<Vec<Safety>> = LazyLock::new(|| {
        let names = std::env::var("CHAOS_WITHOUT").unwrap_or_default();
        parse(&names).unwrap_or_else(|refused| panic!("CHAOS_WITHOUT={names}: {refused}"))
    });
    WITHOUT.contains(&safety)
}

#[cfg(feature = "chaos")]
fn parse(names: &str) -> Result<Vec<Safety>, String> {
    let parse_one = |name: &str| {
        let known = Safety::ALL.map(Safety::name).join(", ");
        let found = Safety::ALL.into_iter().find(|safety| safety.name() == name);
        found.ok_or_else(|| format!("{name:?} is no safety, allowed are {known}"))
    };
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(parse_one).collect()
}

#[cfg(all(test, feature = "chaos"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_misspelt_is_refused_with_what_is_known() {
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("recovery, stall_guard"), Ok(vec![Safety::Recovery, Safety::StallGuard]));
        let refused = parse("recovery,stal_guard").expect_err("a misspelt name");
        assert!(refused.contains("stal_guard") && refused.contains("durable_welcome"), "{refused}");
    }
}
