//! The journal on a real file: what is in it after whatever happened, and what it says of a file that will not do.

use std::fs;

use diesel::connection::SimpleConnection;
use tempfile::TempDir;

use super::*;
use crate::event::{Connected, Disconnected, Meta, RttMs};
use crate::ids::{BanId, EventId, Incarnation, RevocationId, Run, SessionId};
use crate::reason::{DetectedBy, Reason};
use crate::store::audit::{Action, Book, Signature};
use crate::store::bans::{Ban, Target};
use crate::store::revocations::{Revocation, Tokens};
use crate::store::{End, Start, Store, Write};

struct File {
    dir: TempDir,
}

impl File {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("journal.db")
    }

    fn open(&self) -> Journal {
        Journal::open(&self.path(), &node()).unwrap()
    }

    fn refusal(&self) -> String {
        match Journal::open(&self.path(), &node()) {
            Err(StoreError::Broken(line)) => {
                assert!(
                    line.contains(&self.path().display().to_string()) && !line.contains('\n'),
                    "{line:?}"
                );
                line
            }
            other => panic!("{:?}", other.err()),
        }
    }

    /// Speaks to the file past the journal.
    fn sql(&self, statements: &str) {
        let mut conn = SqliteConnection::establish(self.path().to_str().unwrap()).unwrap();
        conn.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
        conn.batch_execute(statements).unwrap();
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn run() -> Run {
    Run { node_id: "n1".parse().unwrap(), incarnation: Incarnation::new() }
}

fn start(device: &str) -> Start {
    let run = run();
    let data = Connected {
        device_id: device.parse().unwrap(),
        device_type: "meter".parse().unwrap(),
        session_id: SessionId::new(),
        node_id: run.node_id,
        incarnation: run.incarnation,
        connected_at: Timestamp(1_700_000_000_123_456),
        remote_addr: "[2001:db8::1]:443".parse().unwrap(),
        meta: Meta::from([("fw".to_owned(), "1 \"quoted\" ☃\n".to_owned())]),
        trace_id: Some("t".to_owned()),
    };
    Start { event_id: EventId::new(), data: Arc::new(data), after_seq: 0, told: Told::Now }
}

fn end(of: &Start) -> End {
    let start = &of.data;
    let data = Disconnected {
        device_id: start.device_id.clone(),
        device_type: start.device_type.clone(),
        session_id: start.session_id,
        node_id: start.node_id.clone(),
        incarnation: start.incarnation,
        reason: Reason::PongTimeout,
        initiator: Reason::PongTimeout.initiator(),
        detected_by: DetectedBy::Heartbeat,
        close_code: Some(4012),
        connected_at: start.connected_at,
        last_pong_at: Some(Timestamp(1_700_000_001_000_000)),
        last_active_at: Timestamp(1_700_000_001_000_001),
        disconnected_at: Timestamp(1_700_000_031_000_000),
        detection_ms: 29_999.999,
        duration_ms: 30_876.544,
        rtt_ms: RttMs { last: Some(0.125), min: Some(0.1), avg: Some(0.3), max: Some(1.75) },
        pings_sent: Some(3),
        pongs_received: None,
        reconnect_count: 2,
        remote_addr: start.remote_addr,
        meta: start.meta.clone(),
        trace_id: start.trace_id.clone(),
    };
    End { event_id: EventId::new(), data: Arc::new(data) }
}

fn entries(writes: &[Write]) -> Arc<Vec<Entry>> {
    Arc::new(writes.iter().cloned().map(Entry::Write).collect())
}

/// The session of each entry, and whether it is an end.
fn sessions(found: &[(i64, Entry)]) -> Vec<(SessionId, bool)> {
    let of = |entry: &Entry| match entry {
        Entry::Begin(..) => panic!("a beginning"),
        Entry::Write(Write::Start(start)) => (start.data.session_id, false),
        Entry::Write(Write::End(end)) => (end.data.session_id, true),
    };
    found.iter().map(|(_, entry)| of(entry)).collect()
}

fn node() -> NodeId {
    "node-1".parse().unwrap()
}

#[test]
fn what_one_node_left_is_not_told_by_another() {
    let file = File::new();
    let other: NodeId = "node-2".parse().unwrap();
    block_on(async {
        let journal = file.open();
        let first = start("a");
        journal.append(Arc::new(vec![Entry::Write(Write::Start(first))])).await.unwrap();
        journal.close().await;
    });
    match Journal::open(&file.path(), &other) {
        Err(StoreError::Broken(text)) => assert!(text.contains("LASTPONG_NODE_ID=node-1"), "{text}"),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it was taken"),
    }
    block_on(async {
        let journal = file.open();
        journal.remove_to(i64::MAX).await.unwrap();
        journal.close().await;
        // Empty it is anyone's.
        Journal::open(&file.path(), &other).unwrap().close().await;
    });
}

#[test]
fn what_goes_in_comes_out_whole() {
    let file = File::new();
    let (run, at) = (run(), Timestamp(1_700_000_000_000_001));
    let (ended, live) = (start("d1"), start("d2"));
    let end = end(&ended);
    block_on(async {
        let journal = file.open();
        let facts = vec![
            Entry::Begin(run.clone(), at),
            Entry::Write(Write::Start(ended.clone())),
            Entry::Write(Write::Start(live.clone())),
        ];
        journal.append(Arc::new(facts)).await.unwrap();
        journal.append(entries(&[Write::End(end.clone())])).await.unwrap();
        journal.close().await;
    });
    block_on(async {
        let journal = file.open();
        assert_eq!((journal.len(), journal.left_by_earlier()), (4, 4));
        let found = journal.oldest(10).await.unwrap();
        match &found[..] {
            [
                (1, Entry::Begin(began, when)),
                (2, Entry::Write(Write::Start(first))),
                (3, Entry::Write(Write::Start(second))),
                (4, Entry::Write(Write::End(last))),
            ] => {
                assert_eq!((began, when), (&run, &at));
                assert_eq!(
                    (&first.data, first.event_id, first.told),
                    (&ended.data, ended.event_id, Told::Past)
                );
                assert_eq!(
                    (&second.data, second.event_id, second.told),
                    (&live.data, live.event_id, Told::Late)
                );
                assert_eq!((&last.data, last.event_id), (&end.data, end.event_id));
            }
            other => panic!("{other:?}"),
        }
        journal.close().await;
    });
}

#[test]
fn the_oldest_leave_first_and_no_number_comes_twice() {
    let file = File::new();
    let writes: Vec<_> = (0..10).map(|n| Write::Start(start(&format!("d{n}")))).collect();
    let in_order = sessions(&(0..10).zip(entries(&writes).to_vec()).collect::<Vec<_>>());
    let journal = file.open();
    block_on(async {
        journal.append(entries(&writes[..6])).await.unwrap();
        journal.append(entries(&writes[6..])).await.unwrap();
        let first = journal.oldest(4).await.unwrap();
        assert_eq!(sessions(&first), in_order[..4]);
        assert_eq!(sessions(&journal.oldest(4).await.unwrap()), in_order[..4], "reading removed them");
        journal.remove_to(first[3].0).await.unwrap();
        assert_eq!(journal.len(), 6);
        assert_eq!(sessions(&journal.oldest(100).await.unwrap()), in_order[4..]);
        journal.remove_to(10).await.unwrap();
        journal.append(entries(&writes[..1])).await.unwrap();
        assert_eq!(journal.oldest(1).await.unwrap()[0].0, 11);
        journal.close().await;
    });
}

#[test]
fn a_start_is_past_as_soon_as_its_end_is_there() {
    let file = File::new();
    let journal = file.open();
    let (first, second) = (start("d"), start("d"));
    let past = |found: Vec<(i64, Entry)>| -> Vec<bool> {
        let starts = found.into_iter().filter_map(|(_, entry)| match entry {
            Entry::Write(Write::Start(start)) => Some(start.told == Told::Past),
            _ => None,
        });
        starts.collect()
    };
    block_on(async {
        journal.append(entries(&[Write::Start(first.clone())])).await.unwrap();
        assert_eq!(past(journal.oldest(1).await.unwrap()), [false]);
        let more = [Write::End(end(&first)), Write::Start(second.clone())];
        journal.append(entries(&more)).await.unwrap();
        assert_eq!(past(journal.oldest(9).await.unwrap()), [true, false]);
        assert_eq!(
            past(journal.oldest(1).await.unwrap()),
            [true],
            "its end is past the limit, and yet there"
        );
        journal.close().await;
    });
}

#[test]
fn a_folder_keeps_its_name() {
    let file = File::new();
    let open = || {
        let journal = file.open();
        let home = journal.home();
        block_on(journal.close());
        home
    };
    let home = open();
    assert_eq!((open(), home.is_nil()), (home, false));
    assert_ne!(File::new().open().home(), home);
}

#[test]
fn a_full_journal_takes_nothing_and_keeps_all() {
    let file = File::new();
    let few = entries(&[Write::Start(start("d"))]);
    let many: Vec<_> = (0..1_000).map(|n| Write::Start(start(&format!("d{n}")))).collect();
    block_on(async {
        let journal = Journal::open_with(&file.path(), &node(), Limits { max_pages: Some(30) }).unwrap();
        journal.append(few.clone()).await.unwrap();
        match journal.append(entries(&many)).await {
            Err(StoreError::Retry(line)) => {
                assert!(line.contains("is full") && line.contains("journal.db"), "{line:?}")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((journal.len(), journal.oldest(10).await.unwrap().len()), (1, 1));
        journal.append(few).await.unwrap();
        journal.remove_to(1).await.unwrap();
        assert_eq!((journal.len(), journal.oldest(10).await.unwrap().len()), (1, 1));
        journal.close().await;
    });
}

#[test]
fn an_entry_that_cannot_be_read_is_named_and_kept() {
    let file = File::new();
    let journal = file.open();
    block_on(async {
        let writes = [Write::Start(start("a")), Write::Start(start("b"))];
        journal.append(entries(&writes)).await.unwrap();
        for (kind, entry) in [("start", "{}"), ("end", "no JSON"), ("oddity", "{}")] {
            file.sql(&format!("UPDATE entries SET kind = '{kind}', entry = '{entry}' WHERE id = 2"));
            match journal.oldest(2).await {
                Err(StoreError::Broken(line)) => {
                    for part in ["journal.db", "entry 2 cannot be read", "backup"] {
                        assert!(line.contains(part), "{line:?} does not say {part:?}");
                    }
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(journal.oldest(1).await.unwrap().len(), 1, "what is before it can be moved");
        }
        journal.append(entries(&writes)).await.unwrap();
        assert_eq!(journal.len(), 4);
        journal.close().await;
    });
}

#[test]
fn a_file_that_will_not_do_is_refused_in_one_line() {
    let file = File::new();
    let held = file.open();
    assert!(file.refusal().contains("another lastpong process holds it"));
    block_on(held.close());

    let whole = fs::read(file.path()).unwrap();
    let mut rubbish = whole.clone();
    let middle = rubbish.len() / 2 / 4096 * 4096;
    rubbish[middle..middle + 4096].fill(0xa5);
    for damaged in [rubbish, whole[..whole.len() / 2].to_vec()] {
        fs::write(file.path(), &damaged).unwrap();
        let line = file.refusal();
        assert!(line.contains("cannot open the journal") && line.contains("is damaged"), "{line:?}");
        assert!(line.contains("gives up what it holds"), "{line:?}");
        assert_eq!(fs::read(file.path()).unwrap(), damaged, "a refused file was changed");
    }
    fs::write(file.path(), &whole).unwrap();
    block_on(file.open().close());

    let record = File::new();
    block_on(crate::store::Store::open_sqlite(&record.path()).unwrap().close());
    assert!(record.refusal().contains("another program"), "the record was taken for a journal");
}

fn ban(device: &str) -> Ban {
    let target = Target::Device(device.parse().unwrap());
    Ban { id: BanId::new(), target, reason: None, by: "ada".into(), at: Timestamp(1), until: None }
}

#[test]
fn the_bans_that_were_known_are_kept() {
    let file = File::new();
    let (a, b) = (ban("a"), ban("b"));
    let anew = Ban { reason: Some("again".into()), ..ban("a") };
    block_on(async {
        let journal = file.open();
        assert_eq!(journal.known_bans().await.unwrap(), []);
        journal.keep_bans(vec![a.clone(), b.clone()], vec![]).await.unwrap();
        journal.keep_bans(vec![anew.clone()], vec![b.target.clone()]).await.unwrap();
        journal.close().await;
    });
    block_on(async {
        let journal = file.open();
        assert_eq!(journal.known_bans().await.unwrap(), [anew]);
        // More than are written in one go.
        let many: Vec<Ban> = (0..1_201).map(|n| ban(&format!("many-{n}"))).collect();
        journal.keep_bans(many.clone(), vec![a.target.clone()]).await.unwrap();
        assert_eq!(journal.known_bans().await.unwrap().len(), many.len());
        let only = vec![many[3].clone(), ban("many-7"), ban("one-more")];
        journal.keep_only_bans(only.clone()).await.unwrap();
        let mut kept = journal.known_bans().await.unwrap();
        kept.sort_by_key(|ban| ban.target.clone());
        assert_eq!(kept, only);
        journal.keep_bans(vec![], only.into_iter().map(|ban| ban.target).collect()).await.unwrap();
        assert_eq!(journal.known_bans().await.unwrap(), []);
        journal.close().await;
    });
}

#[test]
fn what_operators_did_waits_and_is_moved_once() {
    let file = File::new();
    let record = Store::open_sqlite(&file.dir.path().join("record.db")).unwrap();
    let sign = || Signature { actor: "ada".into(), remote_addr: None, node: node() };
    block_on(async {
        let journal = file.open();
        let entries: Vec<_> = (0..150).map(|n| sign().entry(Action::Kick, n, None)).collect();
        for entry in &entries {
            journal.note(entry.clone()).await.unwrap();
        }
        // As if the process had died between the two halves of a move.
        record.note(entries[0].clone()).await.unwrap();
        let book = Book::new(record.clone(), Some(journal.clone()));
        while book.move_waiting().await.unwrap() {}
        assert_eq!(journal.notes(1).await.unwrap(), []);
        let mut moved = record.audit(None, 200).await.unwrap();
        moved.reverse();
        assert_eq!(moved, entries);
        // Nothing is noted twice where the record is there.
        book.note(sign().entry(Action::Drain, "n1", None)).await.unwrap();
        assert_eq!((record.audit_total().await.unwrap(), journal.notes(1).await.unwrap().len()), (151, 0));
        record.close().await;
        journal.close().await;
    });
}

#[test]
fn an_entry_that_the_record_will_not_have_holds_up_no_other() {
    let file = File::new();
    let path = file.dir.path().join("record.db");
    let record = Store::open_sqlite(&path).unwrap();
    let mut conn = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    conn.batch_execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON audit WHEN NEW.target LIKE 'bad%'
         BEGIN SELECT RAISE(ABORT, 'value out of range'); END",
    )
    .unwrap();
    block_on(async {
        let journal = file.open();
        let sign = || Signature { actor: "ada".into(), remote_addr: None, node: node() };
        // More of the one kind than are moved in one go.
        for n in 0..250 {
            let target = if n < 120 { "bad" } else { "good" };
            journal.note(sign().entry(Action::Kick, format!("{target}-{n}"), None)).await.unwrap();
        }
        let book = Book::new(record.clone(), Some(journal.clone()));
        while book.move_waiting().await.unwrap() {}
        assert_eq!(record.audit_total().await.unwrap(), 130);
        assert_eq!(journal.notes(1).await.unwrap(), [], "one waits on");
        record.close().await;
        journal.close().await;
    });
    let kept: i64 = {
        let mut conn = SqliteConnection::establish(file.path().to_str().unwrap()).unwrap();
        let refused = "SELECT count(*) FROM audit_waiting WHERE refused IS NOT NULL";
        diesel::select(diesel::dsl::sql::<BigInt>(&format!("({refused})"))).get_result(&mut conn).unwrap()
    };
    assert_eq!(kept, 120, "what was refused is lost");
}

fn revocation(tokens: Tokens) -> Revocation {
    let (id, at) = (RevocationId::new(), Timestamp(1));
    Revocation { id, tokens, reason: None, by: "ada".into(), at, until: Some(Timestamp(2)) }
}

#[test]
fn the_revocations_that_were_known_are_kept() {
    let file = File::new();
    let of_token = |jti: &str| revocation(Tokens::Jti(jti.into()));
    let (a, b) = (of_token("a"), revocation(Tokens::Device("b".parse().unwrap())));
    block_on(async {
        let journal = file.open();
        assert_eq!(journal.known_revocations().await.unwrap(), []);
        journal.keep_revocations(vec![a.clone(), b.clone()], vec![]).await.unwrap();
        journal.keep_revocations(vec![a.clone()], vec![b.id]).await.unwrap();
        journal.close().await;
    });
    block_on(async {
        let journal = file.open();
        assert_eq!(journal.known_revocations().await.unwrap(), std::slice::from_ref(&a));
        // More than are written in one go.
        let many: Vec<_> = (0..1_201).map(|n| of_token(&format!("many-{n}"))).collect();
        journal.keep_revocations(many.clone(), vec![a.id]).await.unwrap();
        assert_eq!(journal.known_revocations().await.unwrap().len(), many.len());
        journal.keep_revocations(vec![], many.into_iter().map(|one| one.id).collect()).await.unwrap();
        assert_eq!(journal.known_revocations().await.unwrap(), []);
        journal.close().await;
    });
}
