//! How a connection within TLS begins.

/// A record's header, and what a TLSPlaintext holds at most (RFC 8446, section 5.1).
pub const LONGEST_RECORD: usize = HEADER + (1 << 14);

const HEADER: usize = 5;
const HANDSHAKE: u8 = 22;

/// Whether the first record is all here, which holds the ClientHello, or a part of it that is worth a place. What is no
/// handshake is whole at once: it is for TLS to refuse.
pub fn begins_whole(bytes: &[u8]) -> bool {
    match *bytes {
        [HANDSHAKE, _, _, high, low, ref rest @ ..] => {
            rest.len() >= usize::from(u16::from_be_bytes([high, low]))
        }
        [HANDSHAKE, ..] | [] => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_with_its_last_byte_and_what_is_none_at_once() {
        let record = [&[22, 3, 1, 1, 2], &[7; 258][..]].concat();
        assert!((0..record.len()).all(|cut| !begins_whole(&record[..cut])));
        assert!(begins_whole(&record) && begins_whole(&[&record[..], b"more"].concat()));
        assert!(begins_whole(b"G") && begins_whole(&[21]));
        assert_eq!(LONGEST_RECORD, 16_389);
    }
}
