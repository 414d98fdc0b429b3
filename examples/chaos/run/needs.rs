//! What a run needs of the machine, looked for before anything is started, so that all that is missing is said at once.

use std::path::{Path, PathBuf};

use super::clock;
use super::plan::Kind;
use super::postgres;

/// Something a run does not go without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    Root,
    /// A program in PATH, and the Debian package that has it.
    Program(&'static str, &'static str),
    /// A program of Postgres, which its packages keep elsewhere.
    OfPostgres(&'static str),
    Faketime,
    LoopDevices,
}

/// What a run with these kinds of faults needs.
pub fn of(kinds: &[Kind], has_stores: bool) -> Vec<Need> {
    let mut needs = vec![
        Need::Root,
        Need::Program("ip", "iproute2"),
        Need::Program("tc", "iproute2"),
        Need::Program("mkfs.ext4", "e2fsprogs"),
        Need::Program("mount", "mount"),
        Need::LoopDevices,
    ];
    if kinds.iter().any(|kind| matches!(kind, Kind::Cut | Kind::Lossy)) {
        needs.push(Need::Program("iptables", "iptables"));
    }
    if has_stores {
        needs.extend([Need::OfPostgres("postgres"), Need::OfPostgres("initdb")]);
        needs.push(Need::Program("redis-server", "redis-server"));
    }
    if kinds.contains(&Kind::Clock) {
        needs.push(Need::Faketime);
    }
    needs
}

/// What of it this machine lacks, in one line.
pub fn missing(needs: &[Need]) -> Option<String> {
    told(needs.iter().filter(|need| !need.is_met()))
}

fn told<'a>(missing: impl Iterator<Item = &'a Need>) -> Option<String> {
    let all: Vec<_> = missing.map(Need::name).collect();
    (!all.is_empty()).then(|| format!("a run needs what is not here: {}", all.join(", ")))
}

impl Need {
    fn is_met(&self) -> bool {
        match self {
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Program(name, _) => in_path(name).is_some(),
            Self::OfPostgres(name) => postgres::program(name).is_ok(),
            Self::Faketime => clock::library(true).is_some() && clock::library(false).is_some(),
            Self::LoopDevices => Path::new("/dev/loop-control").exists(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Root => "root, for namespaces, mounts and packet filters".to_owned(),
            Self::Program(name, package) => format!("{name} (package {package})"),
            Self::OfPostgres(name) => format!("{name} (package postgresql)"),
            Self::Faketime => "libfaketime (package libfaketime, or --without clock)".to_owned(),
            Self::LoopDevices => "/dev/loop-control (kernel module loop)".to_owned(),
        }
    }
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn only_what_the_kinds_and_the_set_up_need() {
        let bare = of(&[Kind::Kill], false);
        assert!(!bare.contains(&Need::Faketime) && !bare.iter().any(|n| matches!(n, Need::OfPostgres(_))));
        let all = of(Kind::value_variants(), true);
        assert!(bare.iter().all(|need| all.contains(need)));
        let told = told(all.iter()).expect("all is missing");
        for part in ["root", "tc (package iproute2)", "iptables", "postgresql", "redis-server", "libfaketime"]
        {
            assert!(told.contains(part), "{part} is not in {told:?}");
        }
        assert!(!told.contains('\n'));
        assert_eq!(super::told([].into_iter()), None);
    }
}
