//! How a connection within TLS begins: a ClientHello, in one record or several (RFC 8446, sections 4 and 5.1).

/// So much of it is looked at: what a record holds at most, and its header. What is longer has a place waited for.
pub const LOOKED_AT: usize = RECORD + MOST;

/// Of a record's header: its type, its version, its length.
const RECORD: usize = 5;
const MOST: usize = 1 << 14;
const HANDSHAKE: u8 = 22;
/// The major version of all TLS there is.
const MAJOR: u8 = 3;
/// Of a message's header: its type and its length.
const MESSAGE: usize = 4;
const CLIENT_HELLO: u8 = 1;

/// This is no TLS, or none that a client begins.
#[derive(Debug, PartialEq, Eq)]
pub struct NoHello;

/// Whether the ClientHello is all here; whether it is a good one is for TLS to say.
///
/// # Errors
/// It is none, whatever comes after this.
pub fn is_whole(bytes: &[u8]) -> Result<bool, NoHello> {
    let (mut rest, mut message, mut there) = (bytes, [0; MESSAGE], 0);
    loop {
        // As far as a header is there it has to be one.
        let due = [HANDSHAKE, MAJOR];
        if rest.iter().zip(due).any(|(byte, due)| *byte != due) {
            return Err(NoHello);
        }
        let [_, _, _, high, low, ref tail @ ..] = *rest else { return Ok(false) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > MOST {
            return Err(NoHello);
        }
        let part = &tail[..length.min(tail.len())];
        for (into, byte) in message.iter_mut().skip(there).zip(part) {
            *into = *byte;
        }
        there += part.len();
        if there > 0 && message[0] != CLIENT_HELLO {
            return Err(NoHello);
        }
        let [_, length_of_it @ ..] = message.map(usize::from);
        let announced = length_of_it.iter().fold(0, |sum, byte| sum << 8 | byte);
        if there >= MESSAGE && there >= MESSAGE + announced {
            return Ok(true);
        }
        if tail.len() < length {
            return Ok(false);
        }
        rest = &tail[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello of so many bytes, in records of at most so many.
    fn hello(bytes: usize, record: usize) -> Vec<u8> {
        let [.., high, middle, low] = (bytes as u32).to_be_bytes();
        let message = [&[CLIENT_HELLO, high, middle, low][..], &vec![7; bytes]].concat();
        let records = message.chunks(record).map(|part| {
            let length = (part.len() as u16).to_be_bytes();
            [&[HANDSHAKE, MAJOR, 1, length[0], length[1]][..], part].concat()
        });
        records.collect::<Vec<_>>().concat()
    }

    #[test]
    fn it_is_whole_with_its_last_byte_in_however_many_records() {
        for record in [1, 3, 4, 5, 100, MOST] {
            let hello = hello(300, record);
            for cut in 0..hello.len() {
                assert_eq!(is_whole(&hello[..cut]), Ok(false), "{cut} of records of {record}");
            }
            assert_eq!(is_whole(&hello), Ok(true));
            assert_eq!(is_whole(&[&hello[..], b"more"].concat()), Ok(true));
        }
    }

    #[test]
    fn what_is_none_is_none_as_soon_as_it_can_be_told() {
        let good = hello(300, MOST);
        for (at, byte) in [(0, 21), (0, 23), (0, b'G'), (1, 2), (1, 4), (3, 0x41), (5, 2)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(is_whole(&bad[..at]), Ok(false), "{at}");
            assert_eq!(is_whole(&bad), Err(NoHello), "{byte} at {at}");
        }
        assert_eq!(is_whole(&[HANDSHAKE, MAJOR, 1, 0, 0]), Err(NoHello), "an empty record");
        // A record of another kind within it.
        let mut bad = hello(300, 100);
        bad[RECORD + 100] = 21;
        assert_eq!(is_whole(&bad), Err(NoHello));
    }
}
