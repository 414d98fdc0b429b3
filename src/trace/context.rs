//! Whose trace it is: W3C Trace Context, level 1 (`traceparent`).

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The header that says it.
pub const TRACEPARENT: &str = "traceparent";

/// One span, as others refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    trace: u128,
    span: u64,
    /// Whether it is recorded.
    pub sampled: bool,
}

impl Context {
    /// What a `traceparent` says; `None` where it says nothing good, which is then passed over, as the specification asks.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, digits: usize| {
            let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            text.len() == digits && text.bytes().all(lower_hex)
        };
        let formed = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
        // Later versions may say more after the flags, this one does not.
        if !formed || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        Some(Self { trace, span, sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1 })
    }

    /// Of a trace that begins here.
    pub(super) fn root() -> Self {
        Self {
            trace: rand::random_range(1..=u128::MAX),
            span: rand::random_range(1..=u64::MAX),
            sampled: true,
        }
    }

    /// Another span of the same trace.
    pub(super) fn child(self) -> Self {
        Self { span: rand::random_range(1..=u64::MAX), ..self }
    }

    /// As events carry it.
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace)
    }
}

/// The trace id of a `traceparent`, where there is a good one.
pub fn trace_id(header: Option<&str>) -> Option<String> {
    header.and_then(Context::parse).map(Context::trace_id)
}

impl From<Context> for SpanContext {
    fn from(context: Context) -> Self {
        let flags = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let (trace, span) = (TraceId::from(context.trace), SpanId::from(context.span));
        SpanContext::new(trace, span, flags, false, TraceState::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_traceparent_is_read_as_the_specification_says() {
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let read = Context::parse(&good).unwrap();
        assert_eq!((read.trace_id().as_str(), read.span, read.sampled), (TRACE, 0x00f0_67aa_0ba9_02b7, true));
        assert!(!Context::parse(&format!("00-{TRACE}-00f067aa0ba902b7-00")).unwrap().sampled);
        assert!(Context::parse(&format!("cc-{TRACE}-00f067aa0ba902b7-09-what-comes-later")).unwrap().sampled);
        for bad in [
            "",
            "00",
            &format!("00-{TRACE}-00f067aa0ba902b7"),
            &format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            &format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            &format!("00-{TRACE}-0000000000000000-01"),
            &format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            &format!("00-{TRACE}-+0f067aa0ba902b7-01"),
        ] {
            assert_eq!(Context::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_child_is_of_the_same_trace() {
        let root = Context::root();
        let child = root.child();
        assert_eq!(root.trace_id(), child.trace_id());
        assert_ne!(root.span, child.span);
        assert_ne!(Context::root().trace_id(), root.trace_id());
    }
}
