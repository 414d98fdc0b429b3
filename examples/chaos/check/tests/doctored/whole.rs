//! Runs that prove nothing.

use serde_json::json;

use super::super::session::at;
use super::{Files, Verdict, World, broken, judged, world};

fn lacking(edit: impl FnOnce(&mut Files)) -> Verdict {
    let mut files = World::healthy().files();
    edit(&mut files);
    judged(&files)
}

#[test]
fn a_run_that_did_not_come_to_its_end_did_not_hold() {
    for key in ["quiet_at", "left_at", "ended_at"] {
        let verdict = lacking(|files| files.run[key] = json!(null));
        assert!(!verdict.held() && broken(&verdict).is_empty(), "{key}");
    }
    let verdict = lacking(|files| drop(files.faults.pop()));
    assert!(!verdict.held(), "a fault did not end");
    let verdict =
        lacking(|files| files.devices.get_mut("swarm-a").unwrap().retain(|line| line["is"] != "done"));
    assert!(!verdict.held(), "a swarm died by itself");
}

#[test]
fn what_was_not_tried_did_not_hold() {
    let files = world(|world| {
        world.made.clear();
        world.kicks.clear();
    });
    let mut files = files;
    files.devices.insert(
        "swarm-a".into(),
        vec![json!({"at": at(1.0), "is": "swarm"}), json!({"at": at(2.0), "is": "done"})],
    );
    let verdict = judged(&files);
    assert!(broken(&verdict).is_empty() && !verdict.held());
    assert_eq!(verdict.to_string().matches("not tried").count(), 6);
}

#[test]
fn a_run_whose_subscribers_got_nothing_did_not_hold() {
    let verdict = lacking(|files| files.run["subscribers"] = json!(["sse-1", "sse-2"]));
    assert!(!verdict.held() && verdict.to_string().contains("subscribers/sse-2.jsonl is missing"));
    let verdict =
        lacking(|files| files.subscribers.get_mut("pubsub-1").unwrap().retain(|line| line["is"] == "open"));
    assert!(!verdict.held() && verdict.to_string().contains("pubsub-1.jsonl has no event"));
    let verdict = lacking(|files| drop(files.subscribers.remove("ws-1")));
    assert!(!verdict.held() && verdict.to_string().contains("no subscriber of the kind ws"));
}
