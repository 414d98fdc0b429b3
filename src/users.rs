//! `lastpong user`: who may log in, written to the record whether or not a node runs on it.
//!
//! A password comes from the terminal, where it does not show, or as the first line of standard input; never from the
//! command line, which others on the machine can read.

use std::fmt::Write;
use std::io::{self, BufRead, IsTerminal, Read};

use anyhow::{Context as _, bail};
use clap::Subcommand;

use lastpong::config::{Database, Settings};
use lastpong::ids::UserName;
use lastpong::login::password;
use lastpong::role::Role;
use lastpong::secret::{Secret, make_private_dir};
use lastpong::store::Store;
use lastpong::store::audit::{Action, Signature};
use lastpong::store::users::{Credential, Password, User};
use lastpong::time::Timestamp;

#[derive(Subcommand)]
pub enum UserCommand {
    /// Let someone log in
    Add {
        /// Who: 1-128 of [A-Za-z0-9._:@-]
        name: UserName,
        /// What he may do: admin, everything; reader, look
        #[arg(long)]
        role: Role,
    },
    /// List who may log in
    List,
    /// Give a user another password, and end his logins
    Passwd {
        /// Who
        name: UserName,
    },
    /// Let a user log in no more, and end his logins
    Remove {
        /// Who
        name: UserName,
    },
}

pub const HELP: &str = "\
Examples:
  lastpong user add ada --role admin
  lastpong user add wall-screen --role reader < password.txt
  lastpong user passwd ada

A password is asked for in the terminal, or else read as the first line of standard input: 12 to 1024 bytes. What is
done holds at once, on every node of the database.";

/// More than a line with a password may take.
const LONGEST_LINE: u64 = 4_096;

pub fn run(what: &UserCommand, settings: &Settings) -> anyhow::Result<()> {
    // Asked for first, so that nothing is held open while someone types.
    let password = match what {
        UserCommand::Add { .. } | UserCommand::Passwd { .. } => Some(new_password()?),
        UserCommand::List | UserCommand::Remove { .. } => None,
    };
    let store = open(settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let done = apply(what, password, &store).await;
        let noted = match (&done, acted(what)) {
            (Ok(_), Some((action, name))) => note(settings, &store, action, name).await,
            _ => Ok(()),
        };
        store.close().await;
        noted.and(done)
    })?;
    super::print(&done)
}

/// What is done to whom, where something is.
fn acted(what: &UserCommand) -> Option<(Action, &UserName)> {
    match what {
        UserCommand::Add { name, .. } => Some((Action::UserAdd, name)),
        UserCommand::Passwd { name } => Some((Action::UserPassword, name)),
        UserCommand::Remove { name } => Some((Action::UserRemove, name)),
        UserCommand::List => None,
    }
}

/// For the audit. Whoever may run this may write the database: more than that is not known of him.
async fn note(settings: &Settings, store: &Store, action: Action, name: &UserName) -> anyhow::Result<()> {
    let (actor, node) = ("command line".to_owned(), settings.node_id.clone());
    let entry = Signature { actor, remote_addr: None, node }.entry(action, name, None);
    store.note(entry).await.context("it is done, and could not be noted in the audit")
}

/// What it says when it is done.
async fn apply(what: &UserCommand, password: Option<Password>, store: &Store) -> anyhow::Result<String> {
    let now = Timestamp::now();
    let unknown = |name: &UserName| format!("there is no user {name}: lastpong user list");
    match (what, password) {
        (UserCommand::Add { name, role }, Some(password)) => {
            let user = User { name: name.clone(), role: *role, password, created_at: now, changed_at: now };
            if !store.add_user(user).await? {
                bail!("user {name} is there already: lastpong user passwd {name} gives another password");
            }
            Ok(format!("added {name} as {role}\n"))
        }
        (UserCommand::Passwd { name }, Some(password)) => {
            if !store.set_password(name, password, now).await? {
                bail!(unknown(name));
            }
            Ok(format!("{name} has another password, and is logged in nowhere\n"))
        }
        (UserCommand::Remove { name }, _) => {
            if !store.remove_user(name).await? {
                bail!(unknown(name));
            }
            Ok(format!("removed {name}\n"))
        }
        (UserCommand::List, _) => Ok(listed(&store.users().await?)),
        (UserCommand::Add { .. } | UserCommand::Passwd { .. }, None) => bail!("there is no password"),
    }
}

fn listed(users: &[User]) -> String {
    let width = users.iter().map(|user| user.name.as_str().len()).max().unwrap_or(0).max("NAME".len());
    let mut text = format!("{:width$}  {:6}  {:27}  PASSWORD SINCE\n", "NAME", "ROLE", "ADDED");
    for user in users {
        let (name, role) = (user.name.as_str(), user.role);
        let _ = writeln!(text, "{name:width$}  {role:6}  {}  {}", user.created_at, user.changed_at);
    }
    text
}

fn open(settings: &Settings) -> anyhow::Result<Store> {
    match settings.database() {
        Database::Sqlite(path) => {
            if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
                make_private_dir(dir)?;
            }
            Ok(Store::open_sqlite_beside(&path)?)
        }
        Database::Postgres(url) => {
            Store::migrate_postgres(&url)?;
            Ok(Store::open_postgres(&url, &settings.node_id, None)?)
        }
    }
}

fn new_password() -> anyhow::Result<Password> {
    let given = if io::stdin().is_terminal() { asked_for()? } else { first_line()? };
    Ok(Password { hash: password::hash(&given)?, credential: Credential::new() })
}

fn asked_for() -> anyhow::Result<Secret> {
    let ask =
        |prompt| rpassword::prompt_password(prompt).map(Secret::new).context("cannot ask for a password");
    let given = ask("Password: ")?;
    if !given.matches(ask("Once more: ")?.expose().as_bytes()) {
        bail!("the two passwords differ");
    }
    Ok(given)
}

fn first_line() -> anyhow::Result<Secret> {
    let mut line = String::new();
    let mut input = io::BufReader::new(io::stdin().lock().take(LONGEST_LINE));
    input.read_line(&mut line).context("cannot read a password from standard input")?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_listed_in_columns() {
        let user = |name: &str, role| User {
            name: name.parse().unwrap(),
            role,
            password: Password { hash: Secret::new("$h$1"), credential: Credential::new() },
            created_at: Timestamp(0),
            changed_at: Timestamp(1),
        };
        let text = listed(&[user("ada", Role::Admin), user("wall-screen", Role::Reader)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "NAME         ROLE    ADDED                        PASSWORD SINCE");
        assert_eq!(lines[1], "ada          admin   1970-01-01T00:00:00.000000Z  1970-01-01T00:00:00.000001Z");
        assert!(lines[2].starts_with("wall-screen  reader  1970-"), "{text}");
        assert!(!text.contains("$h$"));
    }
}
