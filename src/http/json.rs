//! JSON that is put together from parts that are JSON already, without reading them again.

use serde::Serialize;

/// A value as JSON text.
pub(super) fn text(value: &impl Serialize) -> String {
    // What is written here are structs with string keys, for which serde_json cannot fail.
    serde_json::to_string(value).unwrap_or_else(|e| {
        log::error!(error:% = e; "an answer could not be written as json");
        "{}".to_owned()
    })
}

/// An array of elements that are JSON text.
pub(super) fn array<'a>(elements: impl Iterator<Item = &'a str> + Clone) -> String {
    let mut out = String::with_capacity(2 + elements.clone().map(|e| e.len() + 1).sum::<usize>());
    out.push('[');
    for (n, element) in elements.enumerate() {
        if n > 0 {
            out.push(',');
        }
        out.push_str(element);
    }
    out.push(']');
    out
}

/// An object with one more member, whose value is JSON text.
pub(super) fn with_member(mut object: String, name: &str, value: &str) -> String {
    let end = object.pop();
    debug_assert_eq!(end, Some('}'), "an object");
    if !object.ends_with('{') {
        object.push(',');
    }
    object.push('"');
    object.push_str(name);
    object.push_str("\":");
    object.push_str(value);
    object.push('}');
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_a_whole() {
        let events = array([r#"{"a":1}"#, r#"{"b":2}"#].into_iter());
        assert_eq!(with_member("{}".into(), "events", &events), r#"{"events":[{"a":1},{"b":2}]}"#);
        assert_eq!(
            with_member(r#"{"x":0}"#.into(), "events", &array([].into_iter())),
            r#"{"x":0,"events":[]}"#
        );
    }
}
