//! The faults of this moment.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::part::Part;
use super::plan::{Fault, Kind};

/// What a store wrote just before a fault on it was over may be read so much later.
const LAG: Duration = Duration::from_secs(2);

/// Every fault that began and is not over.
#[derive(Default)]
pub struct Ails(Mutex<Now>);

#[derive(Default)]
struct Now {
    open: BTreeMap<u32, Open>,
    /// Until when the part may tell of its own violent end.
    excused: BTreeMap<Part, Instant>,
}

struct Open {
    kind: Kind,
    whom: Vec<Part>,
    is_healed: bool,
}

impl Ails {
    pub fn begin(&self, number: u32, fault: &Fault) {
        let open = Open { kind: fault.kind, whom: fault.whom.clone(), is_healed: false };
        self.now().open.insert(number, open);
    }

    /// Its cause is gone.
    pub fn healed(&self, number: u32) {
        if let Some(open) = self.now().open.get_mut(&number) {
            open.is_healed = true;
        }
    }

    /// Whom it hit is well again.
    pub fn end(&self, number: u32) {
        let mut now = self.now();
        if let Some(open) = now.open.remove(&number).filter(Open::may_end_a_process) {
            now.excused.extend(open.whom.into_iter().map(|part| (part, Instant::now() + LAG)));
        }
    }

    /// Whether the cause of any is still there.
    pub fn any(&self) -> bool {
        self.now().open.values().any(|open| !open.is_healed)
    }

    /// Whether a fault explains that a process of this part ends: it was killed, or found no room.
    pub fn may_end(&self, part: Part) -> bool {
        let now = self.now();
        let lately = now.excused.get(&part).is_some_and(|until| Instant::now() < *until);
        lately || now.open.values().any(|open| open.may_end_a_process() && open.whom.contains(&part))
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

impl Open {
    fn may_end_a_process(&self) -> bool {
        matches!(self.kind, Kind::Kill | Kind::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::plan::Detail;

    fn on(kind: Kind, part: Part) -> Fault {
        Fault { kind, whom: vec![part], ways: Vec::new(), detail: Detail::None }
    }

    #[test]
    fn only_a_kill_and_a_full_disk_explain_an_end() {
        let ails = Ails::default();
        ails.begin(1, &on(Kind::Clock, Part::Postgres));
        assert!(ails.any() && !ails.may_end(Part::Postgres));
        ails.begin(2, &on(Kind::Full, Part::Postgres));
        assert!(ails.may_end(Part::Postgres) && !ails.may_end(Part::Redis));
        ails.healed(1);
        ails.healed(2);
        assert!(!ails.any() && ails.may_end(Part::Postgres), "healed is not yet well");
        ails.end(1);
        assert!(!ails.may_end(Part::Redis));
    }
}
