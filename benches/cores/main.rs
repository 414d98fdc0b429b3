//! The small pure parts that every ping, frame and event passes: `cargo bench --bench cores`, with a name or a part of one
//! behind it for some of them alone.
//!
//! Left out: what needs a million sessions or a runtime (`bench cores`), and what needs a socket (`bench run`).

mod liveness;
mod page;
mod record;
mod wire;

criterion::criterion_group!(cores, wire::all, liveness::all, record::all, page::all);
criterion::criterion_main!(cores);
