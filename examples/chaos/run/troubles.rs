//! What went wrong in a run that no promise speaks of: a node that ended by itself, a fault that could not be brought
//! about. Any of it fails the run.

use std::sync::Mutex;

#[derive(Default)]
pub struct Troubles(Mutex<Vec<String>>);

impl Troubles {
    pub fn add(&self, trouble: String) {
        eprintln!("chaos: {trouble}");
        self.0.lock().unwrap_or_else(|broken| broken.into_inner()).push(trouble);
    }

    /// Adds what failed, if it did.
    pub fn note<T>(&self, result: anyhow::Result<T>) -> Option<T> {
        result.map_err(|error| self.add(format!("{error:#}"))).ok()
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(|broken| broken.into_inner()).clone()
    }
}
