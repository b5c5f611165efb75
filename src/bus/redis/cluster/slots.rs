//! Slots: which of the 16,384 parts of a Cluster a key or channel belongs to. Pure.
//!
//! A single server is treated as one that serves them all, so that names are made in one way.

/// How many there are.
pub(in crate::bus::redis) const COUNT: u16 = 16_384;

/// The polynomial of CRC-16/XMODEM, which Redis Cluster hashes with.
const POLYNOMIAL: u16 = 0x1021;

const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u16;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
            bit += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "evaluated while compiling, up to the length")]
        {
            table[byte as usize] = crc;
        }
        byte += 1;
    }
    table
}

fn crc16<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u16 {
    bytes.into_iter().fold(0, |crc, byte| {
        let index = usize::from((crc >> 8) ^ u16::from(*byte));
        (crc << 8) ^ TABLE.get(index).copied().unwrap_or_default()
    })
}

/// The slot of a user's channel, and so of all that is kept for him. Holds for names without braces, as users'
/// names are.
pub(in crate::bus::redis) fn of_user(user: &str) -> u16 {
    crc16(super::names::MESSAGES.as_bytes().iter().chain(user.as_bytes())) % COUNT
}

/// The slot of names with `{tag}` in them.
pub(in crate::bus::redis) fn of_tag(tag: &str) -> u16 {
    slot_of_tag(tag)
}

/// Of the slots that `serves` holds for, the one where a primary keeps what is its own.
///
/// It is the first in an order that scatters them: so whichever process reckons it, the answer is the same, and a few
/// slots that come or go rarely change it, where the lowest one would change with each slot of a resharding.
pub(in crate::bus::redis) fn first(serves: impl Fn(u16) -> bool) -> Option<u16> {
    (0..COUNT).map(scattered).find(|slot| serves(*slot))
}

/// What takes a name that it is put into to `slot`: a text in braces.
pub(in crate::bus::redis) fn tag(slot: u16) -> String {
    // One text in 16,384 fits; far more are tried than it takes.
    let mut texts = (0..64 * u32::from(COUNT)).map(|number| number.to_string());
    let text = texts.find(|text| slot_of_tag(text) == slot);
    ["{", &text.unwrap_or_default(), "}"].concat()
}

/// The slot that `{text}` takes a name into.
fn slot_of_tag(text: &str) -> u16 {
    crc16(text.as_bytes()) % COUNT
}

/// The slots in another order, each once: neighbours stand far apart.
fn scattered(index: u16) -> u16 {
    index.wrapping_mul(40_503) % COUNT
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // As `CLUSTER KEYSLOT chat:bob` answers.
        assert_eq!(of_user("bob"), slot_of_tag("chat:bob"));
        assert_eq!(slot_of_tag("foo"), 12_182);
        assert_eq!(slot_of_tag("bar"), 5_061);
    }

    #[test]
    fn every_slot_has_a_tag_and_one_that_is_served_is_taken() {
        let order: BTreeSet<u16> = (0..COUNT).map(scattered).collect();
        assert_eq!(order.len(), usize::from(COUNT), "a slot is never tried");
        for only in [0, 1, 9_999, 16_383] {
            assert_eq!(slot_of_tag(tag(only).trim_matches(['{', '}'])), only);
            assert_eq!(first(|slot| slot == only), Some(only));
        }
        assert_eq!(first(|_| false), None);
    }

    #[test]
    fn a_resharding_slot_by_slot_hardly_changes_the_first() {
        let firsts: BTreeSet<_> =
            (5_461..6_461).map(|from| first(|slot| (from..10_923).contains(&slot))).collect();
        assert!(firsts.len() <= 4, "{firsts:?}");
    }
}
