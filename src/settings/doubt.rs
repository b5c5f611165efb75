//! What was found in files that are looked at again and again, and is not what is in effect.
//!
//! Content is compared, and not the time of a change, so that any way of replacing a file will do: written over, renamed,
//! or a folder's link turned to another folder, as Kubernetes does it. Pure.
//!
//! Invariant: what is half written is not taken for what was meant: a content counts once two looks have found the same;
//! and it counts once, however often it is found after.

/// A digest of what files hold.
pub type Content = [u8; 32];

/// A content that is not the one in effect; none where the files could not be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Doubt {
    content: Option<Content>,
    told: bool,
}

impl Doubt {
    /// Seen for the first time.
    pub fn of(content: Option<Content>) -> Self {
        Self { content, told: false }
    }

    /// Seen again, or another one in its place; true where it counts from now on.
    pub fn confirm(&mut self, content: Option<Content>) -> bool {
        if self.content == content {
            return !std::mem::replace(&mut self.told, true);
        }
        *self = Self::of(content);
        false
    }

    /// Whether it waits for a second look.
    pub fn is_open(&self) -> bool {
        !self.told
    }
}
