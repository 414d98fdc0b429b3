//! On time.

use super::super::session::Made;
use super::{Promise, Verdict, expect, judged, world};

#[test]
fn p5_a_late_record_fails_a_strict_run_only() {
    let files = world(|world| {
        let record = world.find("resets").record.as_mut().unwrap();
        record.told = record.decided + 0.3;
    });
    let verdict = judged(&files);
    assert!(verdict.held());
    assert!(verdict.to_string().contains("over"));
    assert!(!Verdict { strict: true, ..verdict }.held());
}

#[test]
fn p5_one_that_fell_silent_is_never_found() {
    for deed in ["silent", "deaf"] {
        let files = world(|world| {
            let made = Made::new("forgotten", "node-1", 10.0).did(19.0, deed).owed(19.2);
            let made = made.did(50.0, "close").saw(50.02, "close_frame", Some(1000));
            let made = made.ends("client_closed", "close_frame", Some(1000), 50.01);
            world.made.push(Made { id: uuid::Uuid::from_u128(1), ..made });
        });
        expect(&files, Promise::P5, "not found", "forgotten");
    }
}
