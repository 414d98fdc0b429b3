//! A small disk of a part's own, that can be full: a real file system in a file, mounted for as long as the run lasts.
//!
//! Work on it may take seconds, which no other work of the run waits for.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::task::block_in_place;

use super::net::run;

/// Large enough for what a run of an hour keeps; the file behind it is sparse.
const SIZE: u64 = 2 << 30;

/// A mounted disk. It goes with the run's guardian.
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// Mounts one in this folder, which has to be there.
    ///
    /// # Errors
    /// Where the kernel or the user's rights do not allow it.
    pub fn mount(folder: &Path) -> anyhow::Result<Self> {
        block_in_place(|| Self::make(folder))
    }

    fn make(folder: &Path) -> anyhow::Result<Self> {
        let (image, root) = (folder.join("image"), folder.join("disk"));
        fs::create_dir(&root).with_context(|| root.display().to_string())?;
        File::create(&image)
            .and_then(|file| file.set_len(SIZE))
            .with_context(|| image.display().to_string())?;
        run("mkfs.ext4", &format!("-q -m 0 {}", image.display()))?;
        run("mount", &format!("-o loop {} {}", image.display(), root.display()))?;
        Ok(Self { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes all the space that is left.
    ///
    /// # Errors
    /// Where that fails for another reason than that there is no space.
    pub fn fill(&self) -> anyhow::Result<()> {
        let path = self.ballast();
        let fill = || -> std::io::Result<()> {
            let mut ballast = File::create(&path)?;
            // Most of it at once and without a write; then ever smaller pieces, to the last block.
            for piece in [256 << 20, 16 << 20, 1 << 20] {
                let mut length = ballast.metadata()?.len();
                while rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), length, piece)
                    .is_ok()
                {
                    length += piece;
                }
            }
            std::io::Seek::seek(&mut ballast, std::io::SeekFrom::End(0))?;
            // Synced once a size: what was promised room and has none is found then, and the next size takes the rest.
            for piece in [64 << 10, 1024] {
                while takes(ballast.write_all(&vec![0xff; piece]))? {}
                takes(ballast.sync_data())?;
            }
            Ok(())
        };
        block_in_place(fill).with_context(|| format!("{} can not be filled", self.root.display()))
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// Where the file can not be removed.
    pub fn free(&self) -> anyhow::Result<()> {
        let removed = block_in_place(|| fs::remove_file(self.ballast()));
        removed.with_context(|| self.ballast().display().to_string())
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }
}

/// Whether there was room.
fn takes(written: std::io::Result<()>) -> std::io::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::StorageFull => Ok(false),
        Err(error) => Err(error),
    }
}
