//! The certificates of machines on networks, and the user's own authority, which signs them.
//!
//! Its key stays in stead's data folder. Its certificate limits it to names below `.internal` and to private addresses,
//! so that a computer that trusts it risks nothing beyond them (RFC 5280, 4.2.1.10).

mod authority;
mod error;
mod leaf;

pub use authority::{Authority, DOMAIN, NETWORKS};
pub use error::TlsError;
pub use leaf::{Leaf, Names};

use std::time::Duration;

use jiff::Timestamp;
use rcgen::date_time_ymd;
use serde::{Deserialize, Serialize};

/// The largest file of this room that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// From when until when something is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Validity {
    /// It begins a little earlier, because clocks differ. Certificates count in whole seconds.
    fn begin(now: Timestamp, life: Duration, earlier: Duration) -> Self {
        let add = |seconds: i64| {
            let sum = now.as_second().saturating_add(seconds);
            Timestamp::from_second(sum).unwrap_or(Timestamp::MAX)
        };
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Validity {
            not_before: add(-seconds(earlier)),
            not_after: add(seconds(life)),
        }
    }

    /// Whether less than `left` is left at that time, or it has not begun yet, because a clock was wrong.
    fn is_over(self, now: Timestamp, left: Duration) -> bool {
        now < self.not_before || now >= self.until(left)
    }

    /// The time when only `left` is left.
    fn until(self, left: Duration) -> Timestamp {
        self.not_after.checked_sub(left).unwrap_or(Timestamp::MIN)
    }

    fn write(self, params: &mut rcgen::CertificateParams) {
        let date = |time: Timestamp| {
            let seconds = u64::try_from(time.as_second()).unwrap_or_default();
            date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
        };
        params.not_before = date(self.not_before);
        params.not_after = date(self.not_after);
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
