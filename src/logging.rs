//! How the program writes its log: to stderr, as text or as one JSON object a line.
//!
//! Each place of the program may write so many lines a second ([`throttle`]): in a storm every kind of line stays in
//! sight, and none drowns the others.
//!
//! Part of the command line alone; the library only logs. In JSON, a record's own `time`, `level`, `target` and
//! `message` win over key-values of the same name, and a panic is an object as well.

mod throttle;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;

use lastpong::config::{LogFormat, Settings};
use lastpong::log_filter::LogFilter;
use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use serde_json::{Map, Value as Json};

/// Starts logging as the settings say; to be called once. What is logged can be changed by what it returns.
pub fn init(settings: &Settings) -> Arc<LogFilter> {
    let filter = LogFilter::new(&settings.rust_log).expect("the settings were checked");
    let filter = Arc::new(filter);
    let mut builder = env_logger::Builder::new();
    // The filter is asked before.
    builder.filter_level(LevelFilter::Trace).target(env_logger::Target::Stderr);
    match settings.log_format {
        LogFormat::Text => builder.format_timestamp_micros(),
        LogFormat::Json => builder.format(write_json),
    };
    let logger = builder.build();
    log::set_max_level(filter.level());
    let throttled = throttle::Throttle::new(logger, settings.log_lines_per_sec);
    let filtered = Filtered { filter: filter.clone(), logger: throttled };
    log::set_boxed_logger(Box::new(filtered)).expect("logging is started once");
    if settings.log_format == LogFormat::Json {
        std::panic::set_hook(Box::new(tell_panic));
    }
    filter
}

/// Passes on what is to be logged at the moment.
struct Filtered<L> {
    filter: Arc<LogFilter>,
    logger: L,
}

impl<L: Log> Log for Filtered<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.passes(metadata) && self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.filter.passes(record.metadata()) {
            self.logger.log(record);
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// Whose end it is, a session's or the program's, is told by whoever caught it.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    let place = panic.location().map_or_else(String::new, ToString::to_string);
    let thread = std::thread::current();
    // Unless RUST_BACKTRACE asks for it, there is none.
    let backtrace = Backtrace::capture();
    let captured = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = if captured { backtrace.to_string() } else { String::new() };
    log::error!(place:% = place, thread = thread.name().unwrap_or("unnamed"), backtrace:% = backtrace; "panicked: {text}");
}

fn write_json(out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    let mut fields = Fields(Map::new());
    record.key_values().visit(&mut fields).map_err(io::Error::other)?;
    let Fields(mut line) = fields;
    for (key, value) in [
        ("time", lastpong::time::Timestamp::now().to_string()),
        ("level", record.level().as_str().to_ascii_lowercase()),
        ("target", record.target().to_owned()),
        ("message", record.args().to_string()),
    ] {
        line.insert(key.into(), value.into());
    }
    writeln!(out, "{}", Json::Object(line))
}

struct Fields(Map<String, Json>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = serde_json::to_value(&value).unwrap_or_else(|_| value.to_string().into());
        self.0.insert(key.to_string(), value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_is_one_object_with_its_key_values() {
        let pairs =
            [("device_id", Value::from("d\n1")), ("n", Value::from(7)), ("level", Value::from("mine"))];
        let pairs = pairs.as_slice();
        let mut out = Vec::new();
        let record = &Record::builder()
            .args(format_args!("two\nlines"))
            .level(log::Level::Warn)
            .target("lastpong::feed")
            .key_values(&pairs)
            .build();
        write_json(&mut out, record).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let line: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "two\nlines");
        assert_eq!((&line["device_id"], &line["n"]), (&"d\n1".into(), &7.into()));
        assert_eq!((&line["level"], &line["target"]), (&"warn".into(), &"lastpong::feed".into()));
        assert!(line["time"].as_str().is_some_and(|t| t.ends_with('Z')));
    }
}
