//! Which processes descend from one, and what they hold in memory: `/proc/<pid>/stat` of all, read once.
//!
//! A guard adopts what its descendants leave behind (it is their subreaper), so the tree below it is all that it has
//! brought into the world, also where a program has made sessions and groups of its own.

use std::fs;

use rustc_hash::FxHashMap;

/// A process, as `/proc/<pid>/stat` says (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) pid: i32,
    parent: i32,
    /// Ended, and not yet waited for.
    is_zombie: bool,
    /// Resident pages.
    pages: u64,
}

/// All processes that can be seen now.
pub(super) fn scan() -> Vec<Seen> {
    let Ok(folder) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let is_pid = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    folder
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_pid))
        // One that has ended meanwhile is none.
        .filter_map(|entry| parse(&fs::read_to_string(entry.path().join("stat")).ok()?))
        .collect()
}

/// Reads one line; the name in it may hold anything, parentheses and spaces too.
fn parse(stat: &str) -> Option<Seen> {
    let (before, after) = stat.rsplit_once(')')?;
    let pid = before.split(' ').next()?.parse().ok()?;
    // The third field is the first after the name.
    let mut fields = after.split_ascii_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let pages = fields.nth(19)?.parse().ok()?;
    Some(Seen { pid, parent, is_zombie, pages })
}

/// The living processes below `root`, without itself.
pub(super) fn below(all: &[Seen], root: i32) -> Vec<Seen> {
    let mut children: FxHashMap<i32, Vec<Seen>> = FxHashMap::default();
    for seen in all {
        children.entry(seen.parent).or_default().push(*seen);
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        // Taken out, so that nothing can be walked twice.
        for child in children.remove(&parent).unwrap_or_default() {
            open.push(child.pid);
            if !child.is_zombie {
                found.push(child);
            }
        }
    }
    found
}

/// Resident bytes of the processes below `root`; pages that they share count for each.
pub(super) fn memory_below(all: &[Seen], root: i32) -> u64 {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4_096);
    below(all, root).iter().map(|seen| seen.pages.saturating_mul(page)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_name_is() {
        let line =
            "42 (a) (b c) S 7 42 42 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 500 1000000 321 184467";
        let seen = Seen { pid: 42, parent: 7, is_zombie: false, pages: 321 };
        assert_eq!(parse(line), Some(seen));
        assert_eq!(parse(""), None);
        assert_eq!(parse("42 (a) S"), None);
    }

    #[test]
    fn the_tree_is_walked_down_and_not_across() {
        let seen = |pid, parent| Seen { pid, parent, is_zombie: pid == 5, pages: 1 };
        let all =
            [seen(2, 1), seen(3, 2), seen(4, 3), seen(5, 2), seen(6, 5), seen(7, 1), seen(9, 9)];
        let mut pids: Vec<_> = below(&all, 2).iter().map(|seen| seen.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [3, 4, 6]);
        assert!(below(&all, 4).is_empty());
        assert_eq!(below(&all, 9).len(), 1);
    }

    #[test]
    fn this_process_is_seen() {
        let own = i32::try_from(std::process::id()).unwrap();
        let seen = scan().into_iter().find(|seen| seen.pid == own).unwrap();
        assert!(seen.pages > 0 && seen.parent > 0 && !seen.is_zombie);
    }
}
