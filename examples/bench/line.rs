//! One measurement: a JSON object a line, of one form for all rows, so that one table can be made of all of them.

use std::io::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What one row came to for one subject in one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub row: String,
    pub subject: String,
    /// From 1.
    pub round: usize,
    pub value: Map<String, Value>,
    /// What was not as it is by default, and how much was measured.
    #[serde(default)]
    pub settings: Map<String, Value>,
}

impl Line {
    /// # Errors
    /// Where `out` takes nothing.
    pub fn write(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        out.write_all(&text)?;
        Ok(out.flush()?)
    }

    /// A figure of it.
    pub fn figure(&self, key: &str) -> Option<f64> {
        self.value.get(key)?.as_f64()
    }
}

/// Figures in the order in which they are told.
#[derive(Debug, Clone, Default)]
pub struct Figures(pub Map<String, Value>);

impl Figures {
    /// A figure, kept to the precision that anyone reads.
    #[must_use]
    pub fn with(mut self, key: &str, value: f64) -> Self {
        let rounded = if value.abs() < 1e9 { (value * 1e4).round() / 1e4 } else { value };
        self.0.insert(key.to_owned(), Value::from(rounded));
        self
    }

    /// A setting, or what is no number.
    #[must_use]
    pub fn and(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = Line {
            row: "memory".into(),
            subject: "lastpong".into(),
            round: 1,
            value: Figures::default().with("bytes_per_session", 1_234.567_89).0,
            settings: Figures::default().and("sessions", 15_000).0,
        };
        let mut text = Vec::new();
        line.write(&mut text).unwrap();
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: Line = serde_json::from_slice(&text).unwrap();
        assert_eq!(read, line);
        assert_eq!(read.figure("bytes_per_session"), Some(1_234.567_9));
    }
}
