//! Limits foreign output: a guest, or a program that talks to one, may print for ever.

use std::collections::VecDeque;

use crate::report::counted;

/// The start and the end of an output. The cause of an error is usually in one of them.
#[derive(Debug)]
pub struct Ends {
    limit: usize,
    start: Vec<u8>,
    end: VecDeque<u8>,
    left_out: u64,
}

impl Ends {
    /// Keeps `limit` bytes of the start, and as many of the end.
    pub fn new(limit: usize) -> Self {
        Ends {
            limit,
            start: Vec::new(),
            end: VecDeque::new(),
            left_out: 0,
        }
    }

    pub fn push(&mut self, mut bytes: &[u8]) {
        let room = self.limit - self.start.len();
        if room > 0 {
            let (first, rest) = bytes.split_at(room.min(bytes.len()));
            self.start.extend_from_slice(first);
            bytes = rest;
        }
        let skipped = bytes.len().saturating_sub(self.limit);
        self.left_out += skipped as u64;
        let bytes = &bytes[skipped..];
        let over = (self.end.len() + bytes.len()).saturating_sub(self.limit);
        self.end.drain(..over);
        self.left_out += over as u64;
        self.end.extend(bytes);
    }

    /// Returns it as text, with a line in place of the omitted part.
    pub fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.start).into_owned();
        if self.left_out > 0 {
            text.push_str(&format!(
                "\n… {} omitted …\n",
                counted(self.left_out, "byte")
            ));
        }
        let (one, two) = self.end.as_slices();
        let end = [one, two].concat();
        text.push_str(&String::from_utf8_lossy(&end));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_kept_however_much_comes_between() {
        let mut ends = Ends::new(4);
        ends.push(b"abc");
        assert_eq!(ends.text(), "abc");
        ends.push(b"defg");
        assert_eq!(ends.text(), "abcdefg");
        for _ in 0..1000 {
            ends.push(&[b'.'; 1000]);
        }
        ends.push(b"yz");
        assert_eq!(ends.text(), "abcd\n… 1000001 bytes omitted …\n..yz");
    }
}
