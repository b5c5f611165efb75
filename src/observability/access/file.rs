//! A file of access lines: appended to, put aside when it is full or its day is over, and begun anew when somebody else
//! has moved or deleted it.
//!
//! Invariants: a line is never parted between two files; what cannot be written is counted and given up, so that a full disk
//! holds nobody up; of what was put aside no more is kept than was asked for.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// For the owner to write, for his group to read: lines have addresses.
const MODE: u32 = 0o640;
/// How often it is looked whether the file is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between attempts to put a file aside, where that fails.
const RETRY_ROTATION: Duration = Duration::from_mins(1);
const DAY: u64 = 24 * 60 * 60;

/// When a file is put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rotation {
    /// At so many bytes; 0: never.
    pub(super) bytes: u64,
    pub(super) daily: bool,
    /// Files that are kept.
    pub(super) keep: u16,
}

/// Lines that were not written.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) lines: u64,
    pub(super) error: io::Error,
}

/// An open file of lines.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    /// Its device and inode.
    id: (u64, u64),
    size: u64,
    /// The day it is of, since 1970.
    day: u64,
    looked: Instant,
    /// Before this no file is put aside, since it did not work a moment ago.
    rotates_after: Option<Instant>,
    /// A write broke off within a line.
    is_torn: bool,
}

impl LogFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// Of the system.
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
        let metadata = file.metadata()?;
        let written = metadata.modified().unwrap_or(UNIX_EPOCH);
        Ok(Self {
            path: path.to_owned(),
            rotation,
            file,
            id: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            day: if metadata.len() == 0 { day(SystemTime::now()) } else { day(written) },
            looked: Instant::now(),
            rotates_after: None,
            is_torn: false,
        })
    }

    /// Begins the file anew where it is not at its path any more.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.looked = Instant::now();
        if !self.is_in_place() {
            let rotates_after = self.rotates_after;
            *self = Self::open(&self.path, self.rotation)?;
            self.rotates_after = rotates_after;
        }
        Ok(())
    }

    fn is_in_place(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.id)
    }

    /// Appends whole lines.
    pub(super) fn write(&mut self, mut lines: &[u8], now: SystemTime) -> Result<(), Lost> {
        if self.looked.elapsed() >= LOOK_EVERY {
            self.reopen().map_err(|error| Lost { lines: count(lines), error })?;
        }
        if self.rotation.daily && day(now) > self.day && self.size > 0 {
            self.rotate();
        }
        while !lines.is_empty() {
            let fitting = self.fitting(lines);
            if fitting == 0 {
                self.rotate();
                continue;
            }
            let (now, later) = lines.split_at_checked(fitting).unwrap_or((lines, &[]));
            self.append(now)
                .map_err(|(left, error)| Lost { lines: count(left) + count(later), error })?;
            lines = later;
        }
        Ok(())
    }

    /// How many bytes of `lines` go into this file. A file without lines takes one of any length.
    fn fitting(&self, lines: &[u8]) -> usize {
        let limit = self.rotation.bytes;
        let may_rotate = limit > 0 && self.rotates_after.is_none_or(|at| at <= Instant::now());
        let room = usize::try_from(limit.saturating_sub(self.size)).unwrap_or(usize::MAX);
        if !may_rotate || lines.len() <= room {
            return lines.len();
        }
        let whole = lines.get(..room).and_then(|fits| memchr::memrchr(b'\n', fits));
        match whole {
            Some(end) => end + 1,
            None if self.size > 0 => 0,
            None => memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1),
        }
    }

    /// Writes all of it; where that fails, gives back what is left, from the line on that broke off.
    fn append<'a>(&mut self, lines: &'a [u8]) -> Result<(), (&'a [u8], io::Error)> {
        if self.is_torn {
            self.file.write_all(b"\n").map_err(|error| (lines, error))?;
            self.is_torn = false;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(written) if written > 0 => {
                    self.size += written as u64;
                    rest = rest.get(written..).unwrap_or_default();
                }
                Ok(_) => return Err(self.broke_off(lines, rest, io::ErrorKind::WriteZero.into())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broke_off(lines, rest, error)),
            }
        }
        Ok(())
    }

    fn broke_off<'a>(
        &mut self,
        lines: &'a [u8],
        rest: &'a [u8],
        error: io::Error,
    ) -> (&'a [u8], io::Error) {
        let written = lines.len() - rest.len();
        self.is_torn =
            lines.get(..written).is_some_and(|done| !done.ends_with(b"\n") && written > 0);
        (rest, error)
    }

    /// Puts the file aside and begins another; where that fails, it goes on in this one.
    fn rotate(&mut self) {
        // Somebody else may have: another process that writes here, or a program for it.
        let moved = if self.is_in_place() { self.put_aside() } else { Ok(()) };
        let rotates_after = match moved.and_then(|()| Self::open(&self.path, self.rotation)) {
            Ok(next) => {
                *self = next;
                return;
            }
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(target: "App", %error, "{path} cannot be put aside; it grows on");
                Instant::now() + RETRY_ROTATION
            }
        };
        self.rotates_after = Some(rotates_after);
    }

    fn put_aside(&self) -> io::Result<()> {
        let keep = self.rotation.keep;
        // What is too much since less is kept.
        let mut surplus = keep + 1;
        while fs::remove_file(self.numbered(surplus)).is_ok() {
            surplus += 1;
        }
        for number in (1..keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u16) -> PathBuf {
        let mut name = OsString::from(self.path.as_os_str());
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

fn day(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / DAY
}

/// Lines, the end of one among them.
pub(super) fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Rotation = Rotation { bytes: 0, daily: false, keep: 3 };

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        (folder, path)
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    fn numbered(path: &Path, number: u16) -> PathBuf {
        PathBuf::from(format!("{}.{number}", path.display()))
    }

    #[test]
    fn no_line_is_lost_or_parted_by_its_size() {
        let (_folder, path) = folder();
        let mut log = LogFile::open(&path, Rotation { bytes: 40, keep: 100, ..NEVER }).unwrap();
        let lines: Vec<String> = (0..50).map(|n| format!("line {n} {}\n", "x".repeat(n))).collect();
        for batch in lines.chunks(7) {
            log.write(batch.concat().as_bytes(), SystemTime::now()).unwrap();
        }
        let mut found = String::new();
        for number in (1..=100).rev() {
            let text = read(&numbered(&path, number));
            assert!(text.is_empty() || text.ends_with('\n'), "{number}: {text:?}");
            assert!(text.len() <= 40 || text.lines().count() == 1, "{number}: {text:?}");
            found += &text;
        }
        found += &read(&path);
        assert_eq!(found, lines.concat());
    }

    #[test]
    fn no_more_is_kept_than_was_asked_for() {
        let (folder, path) = folder();
        let mut log = LogFile::open(&path, Rotation { bytes: 4, keep: 5, ..NEVER }).unwrap();
        let fill = |log: &mut LogFile, from: u32| {
            for number in from..from + 9 {
                log.write(format!("{number}\n").as_bytes(), SystemTime::now()).unwrap();
                log.write(b"..\n", SystemTime::now()).unwrap();
            }
        };
        fill(&mut log, 100);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6);
        let mut log = LogFile::open(&path, Rotation { bytes: 4, keep: 2, ..NEVER }).unwrap();
        fill(&mut log, 200);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        assert_eq!(read(&numbered(&path, 1)), "208\n");
    }

    #[test]
    fn each_day_has_its_file() {
        let (_folder, path) = folder();
        let mut log = LogFile::open(&path, Rotation { daily: true, ..NEVER }).unwrap();
        let today = SystemTime::now();
        // Should midnight have come in between.
        log.day = day(today);
        log.write(b"today\n", today).unwrap();
        log.write(b"today, too\n", today).unwrap();
        log.write(b"tomorrow\n", today + Duration::from_secs(DAY)).unwrap();
        assert_eq!(read(&numbered(&path, 1)), "today\ntoday, too\n");
        assert_eq!(read(&path), "tomorrow\n");
    }

    #[test]
    fn a_file_that_was_moved_or_deleted_is_begun_anew() {
        let (folder, path) = folder();
        let mut log = LogFile::open(&path, NEVER).unwrap();
        log.write(b"one\n", SystemTime::now()).unwrap();
        fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        log.reopen().unwrap();
        log.write(b"two\n", SystemTime::now()).unwrap();
        assert_eq!(read(&folder.path().join("elsewhere")), "one\n");
        assert_eq!(read(&path), "two\n");
        fs::remove_file(&path).unwrap();
        log.looked = Instant::now().checked_sub(LOOK_EVERY).unwrap();
        log.write(b"three\n", SystemTime::now()).unwrap();
        assert_eq!(read(&path), "three\n");
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let mut log = LogFile::open(Path::new("/dev/full"), NEVER).unwrap();
        let lost = log.write(b"one\ntwo\n", SystemTime::now()).unwrap_err();
        assert_eq!((lost.lines, lost.error.kind()), (2, io::ErrorKind::StorageFull));
        assert_eq!(log.write(b"three\n", SystemTime::now()).unwrap_err().lines, 1);
    }

    #[test]
    fn a_file_that_cannot_be_put_aside_grows_on() {
        let (folder, path) = folder();
        // A folder that has something in it stands where the file should go.
        fs::create_dir_all(folder.path().join("access.log.1/full")).unwrap();
        let mut log = LogFile::open(&path, Rotation { bytes: 4, keep: 1, ..NEVER }).unwrap();
        for _ in 0..3 {
            log.write(b"one\n", SystemTime::now()).unwrap();
        }
        assert_eq!(read(&path), "one\none\none\n");
    }
}
