//! What the start says of a file that will not do. Each line is read by an operator: it names the path and what to do.

use super::*;

/// The one line that opening gives; the file is left as it was.
fn refusal(path: &Path) -> String {
    let before = fs::read(path).ok();
    let line = match Store::open_sqlite(path) {
        Err(StoreError::Broken(line)) => line,
        Err(other) => panic!("not for good: {other:?}"),
        Ok(_) => panic!("{} was opened", path.display()),
    };
    assert_eq!(fs::read(path).ok(), before, "a refused file was changed");
    assert!(line.contains(&path.display().to_string()), "{line:?} does not name {}", path.display());
    assert!(!line.contains('\n') && !line.ends_with('.'), "{line:?} is not one plain line");
    line
}

fn assert_says(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "{line:?} does not say {word:?}");
    }
}

fn filled() -> File {
    let file = File::new();
    let store = file.open();
    let conn = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    conn.block_on(store.close());
    file
}

#[test]
fn garbage_is_no_database() {
    let file = File::new();
    for garbage in [&b"hello"[..], &[0; 4096], &b"SQLite format 2\0 and so on and so on"[..]] {
        fs::write(file.path(), garbage).unwrap();
        assert_says(&refusal(&file.path()), &["is not a SQLite database", "move it away"]);
    }
    // The right beginning and nothing behind it.
    fs::write(file.path(), [&b"SQLite format 3\0"[..], &[7; 5_000]].concat()).unwrap();
    assert_says(&refusal(&file.path()), &["is not a SQLite database"]);
}

#[test]
fn a_truncated_file_is_damaged() {
    let file = filled();
    let whole = fs::read(file.path()).unwrap();
    for left in [whole.len() / 2, whole.len() - 4096, 4096 + 100, 600] {
        fs::write(file.path(), &whole[..left]).unwrap();
        let line = refusal(&file.path());
        let named = line.contains("is damaged") || line.contains("is not a SQLite database");
        assert!(named, "{left} bytes of {}: {line:?}", whole.len());
    }
}

#[test]
fn a_page_of_rubbish_is_damage() {
    let file = filled();
    let mut content = fs::read(file.path()).unwrap();
    content[8192..12288].fill(0xa5);
    fs::write(file.path(), content).unwrap();
    assert_says(&refusal(&file.path()), &["is damaged", "backup"]);
}

#[test]
fn a_file_that_lost_its_content_to_its_log_is_damaged() {
    let file = File::new();
    let wal = file.dir.path().join("lastpong.db-wal");
    fs::write(&wal, [1; 4096]).unwrap();
    assert_says(&refusal(&file.path()), &["it is gone, but its log"]);
    fs::write(file.path(), "").unwrap();
    assert_says(&refusal(&file.path()), &["it is empty, but its log"]);
    assert_eq!(fs::read(&wal).unwrap(), [1; 4096], "the log of an emptied file was touched");
}

#[test]
fn another_programs_database_is_left_alone() {
    let file = File::new();
    file.sql("CREATE TABLE notes (body TEXT)");
    assert_says(&refusal(&file.path()), &["another program"]);
    file.sql("CREATE TABLE __diesel_schema_migrations (version TEXT PRIMARY KEY, run_on TEXT)");
    file.sql("CREATE TABLE more (body TEXT)");
    assert_says(&refusal(&file.path()), &["another program"]);
}

#[test]
fn a_later_version_is_refused() {
    let file = filled();
    file.sql("INSERT INTO __diesel_schema_migrations (version) VALUES ('20991231000000')");
    assert_says(&refusal(&file.path()), &["later version of lastpong", "20991231000000"]);
}

#[test]
fn a_held_file_is_refused_until_it_is_let_go() {
    let file = File::new();
    let store = file.open();
    let line = match Store::open_sqlite(&file.path()) {
        Err(StoreError::Broken(line)) => line,
        _ => panic!("two stores on one file"),
    };
    assert_says(&line, &["another lastpong process", ".lock"]);
    assert!(Store::migrate_sqlite(&file.path()).is_err(), "a held file was migrated");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(store.close());
    runtime.block_on(file.open().close());
}

#[test]
fn who_writes_beside_the_holder_takes_nothing_from_it() {
    let file = File::new();
    let holder = file.open();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let beside = Store::open_sqlite_beside(&file.path()).unwrap();
        let name = "ada".parse().unwrap();
        assert!(!beside.remove_user(&name).await.unwrap());
        assert!(holder.users().await.unwrap().is_empty());
        beside.close().await;
    });
    assert!(Store::open_sqlite(&file.path()).is_err(), "the holder lost its file");
    file.sql("DELETE FROM __diesel_schema_migrations");
    let line = match Store::open_sqlite_beside(&file.path()) {
        Err(StoreError::Broken(line)) => line,
        _ => panic!("a file of another version was opened"),
    };
    assert_says(&line, &["earlier version", "stop it first"]);
    runtime.block_on(holder.close());
}

#[test]
fn a_place_that_will_not_do_is_named() {
    let file = File::new();
    let nowhere = file.dir.path().join("none/lastpong.db");
    assert_says(&refusal(&nowhere), &["there is no directory", "make it first"]);
    fs::create_dir(file.path()).unwrap();
    assert_says(&refusal(&file.path()), &["is not a file"]);
}

/// Where not even root may make a file.
#[cfg(target_os = "linux")]
#[test]
fn a_directory_that_may_not_be_written_is_named() {
    assert_says(&refusal(Path::new("/sys/lastpong.db")), &["the directory /sys may not be written"]);
}

#[test]
fn migrating_names_what_it_did() {
    let file = File::new();
    let applied = Store::migrate_sqlite(&file.path()).unwrap();
    assert_eq!(
        applied,
        ["2026-11-20-000000_record", "2026-11-22-000000_actions", "2026-11-22-010000_revocations"]
    );
    assert!(Store::migrate_sqlite(&file.path()).unwrap().is_empty());
}

#[test]
fn a_first_start_that_was_cut_short_is_taken_up() {
    let file = File::new();
    fs::write(file.path(), "").unwrap();
    file.sql("CREATE TABLE __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)");
    let all = Store::migrate_sqlite(&File::new().path()).unwrap();
    assert_eq!(Store::migrate_sqlite(&file.path()).unwrap(), all);
}
