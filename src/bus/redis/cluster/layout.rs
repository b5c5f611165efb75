//! What a node of the Cluster says of who serves what. Pure.

use super::slots;
use crate::bus::redis::reply::Reply;
use crate::settings::RedisNode;

/// The Cluster as one of its nodes sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Whether the node believes that the Cluster works, and how late a configuration it knows: of two views the
    /// greater one counts.
    pub(super) rank: (bool, u64),
    pub(super) primaries: Vec<Primary>,
    /// Every other node; they may be asked, too.
    pub(super) replicas: Vec<RedisNode>,
}

/// One primary that serves slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Primary {
    pub(super) node: RedisNode,
    /// First and last of each range.
    pub(super) ranges: Vec<(u16, u16)>,
}

impl Primary {
    pub(super) fn serves(&self, slot: u16) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }
}

/// Reads the answers to `CLUSTER INFO` and `CLUSTER SLOTS` of the node `asked`; nothing where they are something else.
pub(super) fn view(info: &Reply, slots: &Reply, asked: &RedisNode) -> Option<View> {
    let Reply::List(ranges) = slots else { return None };
    let info = info.text()?;
    let find = |name: &str| {
        info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
    };
    let works = find("cluster_state") == Some("ok");
    let rank = (works, find("cluster_current_epoch")?.parse().ok()?);
    let mut view = View { rank, primaries: Vec::new(), replicas: Vec::new() };
    for range in ranges {
        let [first, last, primary, replicas @ ..] = range.list() else { return None };
        let range = (slot(first)?, slot(last)?);
        let serving = node(primary, asked)?;
        match view.primaries.iter_mut().find(|known| known.node == serving) {
            Some(known) => known.ranges.push(range),
            None => view.primaries.push(Primary { node: serving, ranges: vec![range] }),
        }
        for replica in replicas.iter().filter_map(|replica| node(replica, asked)) {
            if !view.replicas.contains(&replica) {
                view.replicas.push(replica);
            }
        }
    }
    Some(view)
}

fn slot(reply: &Reply) -> Option<u16> {
    reply.number::<u16>().filter(|slot| *slot < slots::COUNT)
}

/// A node that knows no name for itself is the one that was asked.
fn node(reply: &Reply, asked: &RedisNode) -> Option<RedisNode> {
    let [host, port, ..] = reply.list() else { return None };
    let host = host.text().filter(|host| !host.is_empty() && *host != "?").unwrap_or(&asked.host);
    Some(RedisNode { host: host.to_owned(), port: port.number()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::redis::reply;

    fn node(host: &str, port: u16) -> RedisNode {
        RedisNode { host: host.to_owned(), port }
    }

    fn info(state: &str) -> Reply {
        Reply::Text(format!("cluster_state:{state}\r\ncluster_current_epoch:6\r\n"))
    }

    #[test]
    fn ranges_of_one_primary_come_together() {
        let a = "*3\r\n$1\r\na\r\n:1\r\n$2\r\nid\r\n";
        let (b, nameless) = (a.replace("\r\na\r\n", "\r\nb\r\n"), a.replace("$1\r\na", "$-1"));
        let range =
            |first, last, nodes: &str, count| format!("*{count}\r\n:{first}\r\n:{last}\r\n{nodes}");
        let text = [
            "*3\r\n".to_owned(),
            range(0, 5, &[a, &b].concat(), 4),
            range(6, 9, &nameless, 3),
            range(10, 16_383, a, 3),
        ];
        let (slots, _) = reply::parse(text.concat().as_bytes()).unwrap().unwrap();
        let view = view(&info("ok"), &slots, &node("asked", 7)).unwrap();
        assert_eq!(view.rank, (true, 6));
        assert_eq!(view.replicas, [node("b", 1)]);
        let [one, other] = &view.primaries[..] else { panic!("{view:?}") };
        assert_eq!((&one.node, &one.ranges[..]), (&node("a", 1), &[(0, 5), (10, 16_383)][..]));
        assert_eq!(other.node, node("asked", 1));
        assert!(one.serves(16_383) && !one.serves(6) && other.serves(6));
    }

    #[test]
    fn what_is_no_layout_is_none() {
        let asked = node("a", 1);
        let bad = Reply::List(vec![Reply::List(vec![Reply::Number(0), Reply::Number(16_384)])]);
        assert_eq!(view(&info("ok"), &bad, &asked), None);
        assert_eq!(view(&info("ok"), &Reply::Nothing, &asked), None);
        assert_eq!(view(&Reply::Nothing, &Reply::List(vec![]), &asked), None);
        assert!(!view(&info("fail"), &Reply::List(vec![]), &asked).unwrap().rank.0);
    }
}
