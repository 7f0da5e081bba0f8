//! Sets of host CPUs, written as taskset and the kernel write them: `0-1,3`.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One more than the highest number of a CPU on a Linux host (the limit of CONFIG_NR_CPUS).
const END: u32 = 8192;

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuSet(pub BTreeSet<u32>);

impl CpuSet {
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.contains(&cpu)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn is_subset(&self, of: &CpuSet) -> bool {
        self.0.is_subset(&of.0)
    }

    /// Returns one bit per CPU, the lowest first, as libvirt reads it.
    pub fn bits(&self) -> Vec<u8> {
        let mut bits = vec![0u8; self.0.last().map_or(0, |last| *last as usize / 8 + 1)];
        for cpu in &self.0 {
            bits[*cpu as usize / 8] |= 1 << (cpu % 8);
        }
        bits
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        CpuSet(cpus.into_iter().collect())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.0.iter().copied().peekable();
        let mut first = true;
        while let Some(start) = cpus.next() {
            let mut end = start;
            while let Some(next) = cpus.next_if(|next| *next == end + 1) {
                end = next;
            }
            let comma = if first { "" } else { "," };
            first = false;
            match end - start {
                0 => write!(f, "{comma}{start}")?,
                _ => write!(f, "{comma}{start}-{end}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for CpuSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.trim()
                .parse::<u32>()
                .ok()
                .filter(|cpu| *cpu < END)
                .ok_or_else(|| format!("{:?} is not the number of a CPU", text.trim()))
        };
        let mut cpus = BTreeSet::new();
        for part in text.split(',') {
            match part.split_once('-') {
                None => {
                    cpus.insert(number(part)?);
                }
                Some((first, last)) => {
                    let (first, last) = (number(first)?, number(last)?);
                    if first > last {
                        return Err(format!("{} ends before it starts", part.trim()));
                    }
                    cpus.extend(first..=last);
                }
            }
        }
        Ok(CpuSet(cpus))
    }
}

impl Serialize for CpuSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_read_and_write() {
        for (text, same) in [
            ("0", "0"),
            ("0-1", "0-1"),
            ("3,0-1, 2", "0-3"),
            ("7,1,2,5", "1-2,5,7"),
        ] {
            assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), same);
        }
        for wrong in ["", "a", "1-", "-1", "3-1", "0,,1", "99999", "0-4000000000"] {
            assert!(wrong.parse::<CpuSet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bits_are_as_libvirt_takes_them() {
        assert_eq!("0,3,9".parse::<CpuSet>().unwrap().bits(), [0b1001, 0b10]);
    }
}
