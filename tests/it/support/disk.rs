//! A disk of a test's own, that can be full and can hang: a small file system, mounted for as long as it is needed.
//!
//! It is a real one (ext4 in a file), so that a full disk is the kernel's "no space left" and a hang is the kernel's
//! own: a frozen file system lets no write through and answers none. It needs root, `mount`, `mkfs.ext4` and
//! `fsfreeze` (util-linux, e2fsprogs), and fails, rather than passing over the test, where it may not.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Thaws and unmounts once its input ends: with the test's process, however that went.
const GUARDIAN: &str = "cat >/dev/null; fsfreeze -u \"$1\" 2>/dev/null; umount -l \"$1\"";

/// A mounted disk; it goes with this value. Whoever uses it has to end before it.
pub struct Disk {
    dir: TempDir,
    guardian: Child,
}

impl Disk {
    /// A disk of 24 MiB.
    ///
    /// # Panics
    /// Where the kernel or the user's rights do not allow it.
    pub fn mount() -> Self {
        let dir = tempfile::tempdir().expect("a directory for the disk");
        let (image, root) = (dir.path().join("image"), dir.path().join("disk"));
        fs::create_dir(&root).expect("a place to mount at");
        File::create(&image).and_then(|f| f.set_len(24 << 20)).expect("a file for the disk");
        let (image, at) = (image.to_str().expect("UTF-8"), root.to_str().expect("UTF-8"));
        run("mkfs.ext4", &["-q", "-m", "0", image]);
        run("mount", &["-o", "loop", image, at]);
        let guardian = Command::new("sh")
            .args(["-c", GUARDIAN, "guardian", at])
            .stdin(Stdio::piped())
            // A signal to all of the test's group is not for it: it has to outlive the test.
            .process_group(0)
            .spawn()
            .expect("sh can be run");
        Self { dir, guardian }
    }

    /// For `LASTPONG_DATA_DIR`.
    pub fn data_dir(&self) -> String {
        self.root().join("data").to_str().expect("UTF-8").to_owned()
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Takes all the space that is left, until what this gives is dropped.
    pub fn fill(&self) -> Trouble {
        let path = self.root().join("ballast");
        let mut ballast = File::create(&path).expect("the disk takes a file");
        // In large pieces, then to the last of the smallest blocks there are. Seldom synced: whoever waits for this has
        // devices to answer for.
        for piece in [1 << 20, 1024] {
            loop {
                match ballast.write_all(&vec![0xff; piece]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("the disk cannot be filled: {error}"),
                }
            }
            ballast.sync_data().expect("what the disk took it keeps");
        }
        Trouble::Full(path)
    }

    /// A write neither succeeds nor fails but waits, until what this gives is dropped.
    pub fn freeze(&self) -> Trouble {
        run("fsfreeze", &["-f", self.root().to_str().expect("UTF-8")]);
        Trouble::Frozen(self.root())
    }
}

/// What ails a disk; it is well again once this is dropped. It has to go before the program that writes to the disk,
/// because one that waits for a frozen disk cannot even be killed.
#[must_use]
pub enum Trouble {
    Full(PathBuf),
    Frozen(PathBuf),
}

impl Drop for Trouble {
    fn drop(&mut self) {
        match self {
            Self::Full(ballast) => _ = fs::remove_file(ballast),
            Self::Frozen(disk) => _ = Command::new("fsfreeze").arg("-u").arg(disk).output(),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{program} cannot be run: {e}"));
    let error = String::from_utf8_lossy(&output.stderr);
    let line = arguments.join(" ");
    assert!(output.status.success(), "`{program} {line}` failed (it needs root and loop devices): {error}");
}
