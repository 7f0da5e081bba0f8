//! NTP: tells a guest this computer's time (RFC 4330, "SNTP"), so that its clock is right without a way out.

use std::time::{Duration, SystemTime};

/// The length of a message without an authenticator, in bytes.
pub(super) const MESSAGE: usize = 48;

/// From the first second of NTP, in 1900, to that of Unix.
const TO_UNIX: u64 = 2_208_988_800;

const CLIENT: u8 = 3;
const SERVER: u8 = 4;

/// How many computers may be between this one and one that knows the time by itself. This computer does not say which it has
/// its time from, so that a guest prefers other servers that it is told about.
const STRATUM: u8 = 8;

/// The precision of the clock: 2 to this power, in seconds, so about a microsecond.
const PRECISION: i8 = -20;

/// Returns the answer to a question; `None` if it is none.
pub(super) fn answer(question: &[u8], now: SystemTime) -> Option<[u8; MESSAGE]> {
    let question = question.get(..MESSAGE)?;
    let (version, mode) = (question[0] >> 3 & 7, question[0] & 7);
    if mode != CLIENT || !(1..=4).contains(&version) {
        return None;
    }
    let now = stamp(now.duration_since(SystemTime::UNIX_EPOCH).ok()?);
    let mut answer = [0; MESSAGE];
    answer[0] = version << 3 | SERVER;
    answer[1] = STRATUM;
    answer[2] = question[2];
    answer[3] = PRECISION.to_be_bytes()[0];
    // Who this computer has its time from: itself.
    answer[12..16].copy_from_slice(&[127, 127, 1, 0]);
    answer[16..24].copy_from_slice(&now);
    // When the guest says that it has asked.
    answer[24..32].copy_from_slice(&question[40..48]);
    answer[32..40].copy_from_slice(&now);
    answer[40..48].copy_from_slice(&now);
    Some(answer)
}

/// A time since 1970 as NTP has it: seconds since 1900, which begin again in 2036, and fractions of 2^-32 s.
fn stamp(since: Duration) -> [u8; 8] {
    let seconds = (since.as_secs() + TO_UNIX) & u64::from(u32::MAX);
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    (seconds << 32 | fraction).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_learns_this_computers_time() {
        let mut question = [0; MESSAGE];
        question[0] = 4 << 3 | CLIENT;
        question[2] = 6;
        question[40..48].copy_from_slice(b"guestsay");
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        let answer = answer(&question, now).unwrap();
        // No leap second is announced, and the version is the guest's.
        assert_eq!(answer[0], 0b0010_0100);
        assert!((1..16).contains(&answer[1]) && answer[2] == 6);
        assert_eq!(answer[24..32], question[40..48]);
        let seconds = u32::from_be_bytes(answer[40..44].try_into().unwrap());
        assert_eq!(u64::from(seconds), 1_700_000_000 + TO_UNIX);
        assert_eq!(answer[44..48], [0x80, 0, 0, 0]);
        assert_eq!(answer[32..40], answer[40..48]);
        // In 2036.
        let next_era = Duration::from_secs(u64::from(u32::MAX) + 1 - TO_UNIX);
        assert_eq!(stamp(next_era), [0; 8]);
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        let now = SystemTime::now();
        let mut question = [0; MESSAGE];
        for first in [0, SERVER | 4 << 3, CLIENT, CLIENT | 5 << 3, 6 | 2 << 3] {
            question[0] = first;
            assert_eq!(answer(&question, now), None, "{first:#b}");
        }
        question[0] = CLIENT | 3 << 3;
        assert!(answer(&question, now).is_some());
        assert_eq!(answer(&question[..47], now), None);
        assert_eq!(answer(&[], now), None);
    }
}
