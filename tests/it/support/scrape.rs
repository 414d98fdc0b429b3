//! `/metrics` as Prometheus reads it: fetched, and parsed by its own library for Python.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::python::Script;
use super::server::ADMIN_TOKEN;
use super::{Server, eventually};

/// Reads the metrics of one program over and over.
pub struct Scraper(Script);

/// All samples of one moment.
pub struct Scrape(pub Vec<Sample>);

#[derive(Debug, Clone, Deserialize)]
pub struct Sample {
    pub name: String,
    /// As the metric's `# TYPE` says.
    #[serde(rename = "type")]
    pub kind: String,
    pub help: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Scraper {
    pub async fn of(server: &Server) -> Self {
        let arguments = [&*server.url("/metrics"), ADMIN_TOKEN];
        Self(Script::start("prometheus_client", include_str!("../python/scrape.py"), &arguments).await)
    }

    pub async fn read(&mut self) -> Scrape {
        let samples = self.0.ask("samples").await;
        Scrape(serde_json::from_value(samples).expect("samples"))
    }

    /// Waits until each of these is more than it was in `before`; what was not there counts as 0.
    pub async fn rises(&mut self, before: &Scrape, all: &[&str]) {
        let mut behind: Vec<&str> = all.to_vec();
        let risen = eventually_or(async || {
            let now = self.read().await;
            behind.retain(|what| now.total(what) <= before.total(what));
            behind.is_empty().then_some(())
        });
        assert!(risen.await, "these did not rise: {behind:#?}");
    }

    /// Waits until `what` is a value that is wanted.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(f64) -> bool) {
        eventually(what, async || self.read().await.value(what).filter(|value| wanted(*value)).map(|_| ()))
            .await;
    }
}

async fn eventually_or(mut condition: impl AsyncFnMut() -> Option<()>) -> bool {
    let deadline = std::time::Instant::now() + super::PATIENCE;
    while std::time::Instant::now() < deadline {
        if condition().await.is_some() {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    false
}

impl Scrape {
    /// The sum of the samples that `what` names, as `name{label="value"}` does; none where there is none.
    pub fn value(&self, what: &str) -> Option<f64> {
        let (name, labels) = parse(what);
        let named = self.0.iter().filter(|sample| {
            sample.name == name && labels.iter().all(|(l, v)| sample.labels.get(*l).is_some_and(|is| is == v))
        });
        named.map(|sample| sample.value).reduce(|sum, value| sum + value)
    }

    pub fn total(&self, what: &str) -> f64 {
        self.value(what).unwrap_or(0.0)
    }
}

fn parse(what: &str) -> (&str, Vec<(&str, &str)>) {
    let Some((name, labels)) = what.split_once('{') else { return (what, Vec::new()) };
    let pairs = labels.trim_end_matches('}').split(',').map(|pair| {
        let (label, value) = pair.split_once('=').unwrap_or_else(|| panic!("{what}: a label has a value"));
        (label, value.trim_matches('"'))
    });
    (name, pairs.collect())
}
